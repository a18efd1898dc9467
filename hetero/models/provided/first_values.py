"""How transformers begins each parameter of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import torch

from hetero.models.provided.skeleton import Skeleton


class FirstValue(NamedTuple):
    """Normal ones of a deviation `std`, or a `value` for all."""

    kind: Literal["std", "value"]
    number: float


def first_values(skeleton: Skeleton) -> dict[int, FirstValue]:
    """By the parameter's id; without those that begin in another way."""
    import transformers.initialization as init

    found: dict[int, FirstValue] = {}
    normal, unknown = _noting(found, "std", lambda mean=0.0, std=1.0, *_, **__: std), _forgetting(found)
    known = {
        "normal_": normal,
        "trunc_normal_": normal,
        "zeros_": _noting(found, "value", lambda: 0.0),
        "ones_": _noting(found, "value", lambda: 1.0),
        "constant_": _noting(found, "value", lambda val: val),
        "copy_": unknown,
        "uniform_": unknown,
    }
    with patch.multiple(init, **known), torch.no_grad():
        for module in skeleton.causal.modules():
            skeleton.causal._init_weights(module)
    return found


def _noting(found: dict[int, FirstValue], kind: Literal["std", "value"], number: Callable[..., float]) -> Any:
    """Stands in the place of a function that begins a tensor; `number` is given its other arguments."""

    def note(tensor: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        found[id(tensor)] = FirstValue(kind, float(number(*given, **named)))
        return tensor

    return note


def _forgetting(found: dict[int, FirstValue]) -> Any:
    def forget(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        found.pop(id(tensor), None)
        return tensor

    return forget
