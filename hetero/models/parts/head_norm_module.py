"""Root-mean-square norms of queries and keys, of which a rank has some of the heads.

Shapes: B sequences, T positions, H heads of this rank, K head size.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.group import TensorGroup
from hetero.layers.spec import TensorSpec
from hetero.models.parts.attention import HeadNorm


def head_norm(builder: Builder, norm: HeadNorm | None, weight: TensorSpec | None) -> nn.Module:
    """x_BTHK -> the same shape; without a norm, the same."""
    if norm is None or weight is None:
        return nn.Identity()
    return (WidthNormModule if norm.whole else HeadNormModule)(builder, norm, weight)


class HeadNormModule(ShardedModule):
    """Each head by itself, with one weight for all."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, norm: HeadNorm, weight: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", weight, builder.parameter(weight))
        operators = builder.operators
        self._rms_norm = operators.offset_rms_norm if norm.offset else operators.rms_norm
        self._eps = norm.eps

    def forward(self, x_BTHK: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x_BTHK, self.weight, self._eps)


class WidthNormModule(ShardedModule):
    """All heads together: ranks add up their squares. With fewer heads than ranks, replicas' squares count once."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, norm: HeadNorm, weight: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", weight, builder.parameter(weight))
        self._group, self._eps = builder.group, norm.eps
        held = builder.group.size * self.weight.numel()
        self._width, self._replicas = weight.layout.shape[0], held // weight.layout.shape[0]

    def forward(self, x_BTHK: torch.Tensor) -> torch.Tensor:
        wide_BTHK = x_BTHK.float()
        squares_BT11 = wide_BTHK.pow(2).sum((-1, -2), keepdim=True) / self._replicas
        if self._group.size > 1:
            squares_BT11 = cast(torch.Tensor, _Summed.apply(squares_BT11, self._group))
        scale_BT11 = torch.rsqrt(squares_BT11 / self._width + self._eps)
        return self.weight.view(x_BTHK.shape[-2:]) * (wide_BTHK * scale_BT11).to(x_BTHK.dtype)


class _Summed(torch.autograd.Function):
    """The sum over the ranks, each of which makes a share of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.group = group
        return group.all_reduce_sum(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.group.all_reduce_sum(gradients[0].clone(memory_format=torch.contiguous_format)), None
