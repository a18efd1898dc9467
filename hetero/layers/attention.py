"""Causal self-attention with grouped queries, its heads cut over the ranks.

Shapes: B sequences, T positions, D hidden, H query heads and G key-value heads of this rank, K head size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from hetero.layers.builder import Builder
from hetero.layers.linear import Linear
from hetero.layers.rotary import Angles, angles_at, plain_angles
from hetero.layers.spec import TensorSpec


class Attention(nn.Module):
    """x_BTD -> this unit's addition to the residual stream, (B, T, D), whole on every rank.

    `specs` holds q, k, v and o as "q.weight", and their biases as "q.bias" where there are any. With fewer key-value
    heads than ranks, each rank has the one that its query heads read.
    """

    def __init__(self, builder: Builder, specs: Mapping[str, TensorSpec], head_dim: int, rope_theta: float) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (
            Linear(builder, specs[f"{name}.weight"], specs.get(f"{name}.bias")) for name in "qkvo"
        )
        self._group, self._operators = builder.group, builder.operators
        self._head_dim, self._theta = head_dim, rope_theta

    def forward(self, x_BTD: torch.Tensor, positions_T: torch.Tensor | None = None) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD)
        cos_TK, sin_TK = self._angles(x_BTD, positions_T)
        q_BHTK = self._operators.rotary(self._heads(self.q(x_BTD)), cos_TK, sin_TK)
        k_BGTK = self._operators.rotary(self._heads(self.k(x_BTD)), cos_TK, sin_TK)
        y_BHTK = self._operators.attention(q_BHTK, k_BGTK, self._heads(self.v(x_BTD)))
        return self._group.reduce_out(self.o(y_BHTK.transpose(1, 2).flatten(2)))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self._head_dim)).transpose(1, 2)

    def _angles(self, x_BTD: torch.Tensor, positions_T: torch.Tensor | None) -> Angles:
        if positions_T is None:
            return plain_angles(self._theta, self._head_dim, x_BTD.shape[1], x_BTD.device, x_BTD.dtype)
        return angles_at(positions_T, self._theta, self._head_dim, x_BTD.device, x_BTD.dtype)
