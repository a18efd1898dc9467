"""Attention over this rank's heads.

Shapes: B sequences, T positions, D hidden, H query heads and G key-value heads of this rank, K head size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.rotary import Angles, angles_of, plain_angles
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.attention import Attention
from hetero.models.parts.projected_module import ProjectedModule


class AttentionModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows."""

    def __init__(self, builder: Builder, part: Attention, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.q, self.k, self.v = (Linear(builder, specs[f"{name}.weight"], specs.get(f"{name}.bias")) for name in "qkv")
        self.o = SummedLinear(builder, specs["o.weight"])
        self._group, self._weight_gradients, self._operators = (
            builder.group,
            builder.weight_gradients,
            builder.operators,
        )
        self._head_dim, self._theta = part.head_dim, part.rope_theta

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        angles = self._angles(x_BTD, batch)
        q_BHTK = self._operators.rotary(self._heads(self.q(x_BTD)), *angles)
        k_BGTK = self._operators.rotary(self._heads(self.k(x_BTD)), *angles)
        v_BGTK = self._heads(self.v(x_BTD))
        if (mask := batch.mask(x_BTD.shape[1])) is None:
            y_BHTK = self._operators.attention(q_BHTK, k_BGTK, v_BGTK)
        else:
            y_BHTK = self._operators.masked_attention(q_BHTK, k_BGTK, v_BGTK, mask)
        return y_BHTK.transpose(1, 2).flatten(2)

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self.o(y)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self._head_dim)).transpose(1, 2)

    def _angles(self, x_BTD: torch.Tensor, batch: Batch) -> Angles:
        positions_BT = batch.positions_BT
        plain = plain_angles(self._theta, self._head_dim, x_BTD.shape[1], x_BTD.device, x_BTD.dtype)
        if positions_BT is None:
            return plain
        return batch.once(("angles", self._theta, self._head_dim, x_BTD.dtype), lambda: angles_of(plain, positions_BT))
