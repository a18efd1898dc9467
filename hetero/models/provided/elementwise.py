"""Modules of a layer that make nothing of products: norms, and activations. Backward can make again what they gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

_ACTIVATIONS = "transformers.activations", "torch.nn.modules.activation"


def elementwise(layer: nn.Module) -> Iterator[nn.Module]:
    """Those that hold no other module, by their names, as transformers has no other mark of them."""
    for module in layer.modules():
        kind = type(module)
        if not module._modules and ("Norm" in kind.__name__ or kind.__module__ in _ACTIVATIONS):
            yield module


def wrap(module: nn.Module, wrapper: Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]) -> None:
    """Calls by position go through the wrapper."""
    own: Callable[..., torch.Tensor] = module.forward
    wrapped = wrapper(own)

    def forward(*given: Any, **named: Any) -> torch.Tensor:
        return own(*given, **named) if named else wrapped(*given)

    module.forward = forward
