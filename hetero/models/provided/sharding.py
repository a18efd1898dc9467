"""What modules of a layer become on the ranks of a group, by the styles of transformers' own plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.spec import TensorSpec
from hetero.models.provided.told import ToldUnit


class Inward(Linear):
    """Each rank makes some of the outputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self._group.copy_in(x, self._weight_gradients.flush))


class PackedInward(nn.Module):
    """The same, of two products whose weights lie in one: each rank has some of either's outputs."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, group: TensorGroup, module: nn.Module) -> None:
        super().__init__()
        self._group = group
        for name, tensor in module._parameters.items():
            self.register_parameter(name, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self._group.copy_in(x), self.weight, self.bias)


def outward(group: TensorGroup, module: nn.Module) -> None:
    """What the module makes is summed, of inputs that are given to all alike."""
    own = module.forward

    def forward(*given: Any, **named: Any) -> torch.Tensor:
        given = tuple(_entering(group, x) for x in given)
        named = {name: _entering(group, x) for name, x in named.items()}
        return group.reduce_out(own(*given, **named))

    module.forward = forward


def latent(group: TensorGroup, module: nn.Module, rope: int) -> None:
    """The last `rope` outputs go to the heads of all ranks."""
    own: Callable[[torch.Tensor], torch.Tensor] = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _ToHeads.apply(own(x), group, rope))

    module.forward = forward


class _ToHeads(torch.autograd.Function):
    """The same forward; backward sums the gradients of the last outputs. Those of the others come summed."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, group: TensorGroup, rope: int) -> torch.Tensor:
        ctx.group, ctx.rope = group, rope
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        total[..., -ctx.rope :] = ctx.group.all_reduce_sum(total[..., -ctx.rope :].contiguous())
        return total, None, None


def _entering(group: TensorGroup, x: Any) -> Any:
    wanted = isinstance(x, torch.Tensor) and x.is_floating_point() and x.requires_grad
    return group.copy_in(x) if wanted else x


def sharded(layer: nn.Module, told: ToldUnit, builder: Builder, specs: Mapping[str, TensorSpec]) -> set[str]:
    """Puts ours in the place of its products, and tells which of its tensors these hold."""
    held: set[str] = set()
    for path in told.linear:
        style = told.styles.get(path)
        made = {"inward": Inward, "outward": SummedLinear}.get(style or "", Linear)
        weight, bias = f"{path}.weight", f"{path}.bias"
        parent, _, name = path.rpartition(".")
        old = layer.get_submodule(path)
        new = made(builder, specs[weight], specs.get(bias))
        new.train(old.training)
        layer.get_submodule(parent)._modules[name] = new
        held |= {one for one in (weight, bias) if one in specs}
    group = builder.group
    if group.size > 1:
        for path, style in told.styles.items():
            module = layer.get_submodule(path)
            if style == "latent":
                latent(group, module, told.rope)
            elif style == "experts":
                outward(group, module)
            elif style == "packed":
                parent, _, name = path.rpartition(".")
                layer.get_submodule(parent)._modules[name] = PackedInward(group, module)
    return held
