"""Attention over this rank's heads.

Shapes: B sequences, T positions, D hidden, H query heads and G key-value heads of this rank, K head size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from backends.attention_mask import plain_mask
from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.capped_attention import capped_attention
from hetero.layers.frequencies import Rotary
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.rotary import Angles, angles_of, plain_angles, turned
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.attention import Attention
from hetero.models.parts.head_norm_module import head_norm
from hetero.models.parts.projected_module import ProjectedModule


class AttentionModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows."""

    def __init__(self, builder: Builder, part: Attention, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.q, self.k, self.v = (Linear(builder, specs[f"{name}.weight"], specs.get(f"{name}.bias")) for name in "qkv")
        self.o = SummedLinear(builder, specs["o.weight"], specs.get("o.bias"))
        self._group, self._weight_gradients, self._operators = (
            builder.group,
            builder.weight_gradients,
            builder.operators,
        )
        self._part = part
        self._plain_masks = [plain_mask(window) for window in (part.window, None)]  # held: made once for a stage
        self.sinks = _Sinks(builder, specs["sinks.weight"]) if part.sinks else None
        self.q_norm, self.k_norm = (head_norm(builder, part.norm, specs.get(f"{name}_norm.weight")) for name in "qk")

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        q_BHTK = self._turned(self.q, self.q_norm, x_BTD, batch)
        k_BGTK = self._turned(self.k, self.k_norm, x_BTD, batch)
        if (scale := self._part.query_scale) != 1.0:
            q_BHTK = q_BHTK * scale
        return self._read(q_BHTK, k_BGTK, self._heads(self.v(x_BTD)).transpose(1, 2), batch).transpose(1, 2).flatten(2)

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self.o(y)

    def _turned(self, linear: Linear, norm: nn.Module, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Queries or keys, with their positions."""
        x_BHTK = norm(self._heads(linear(x_BTD))).transpose(1, 2)
        if (rotary := self._part.rotary) is None:
            return x_BHTK
        return turned(x_BHTK, rotary, angles_for(rotary, x_BTD, batch), self._operators.rotary)

    def _read(self, q_BHTK: torch.Tensor, k_BGTK: torch.Tensor, v_BGTK: torch.Tensor, batch: Batch) -> torch.Tensor:
        mask, cap = batch.mask(q_BHTK.shape[2], self._part.window), self._part.cap
        if cap is not None or self.sinks is not None:
            every = plain_mask(None) if mask is None else mask
            sink_H = None if self.sinks is None else self.sinks.weight
            return capped_attention(q_BHTK, k_BGTK, v_BGTK, every.added(q_BHTK), cap, sink_H)
        if mask is None:
            return self._operators.attention(q_BHTK, k_BGTK, v_BGTK)
        return self._operators.masked_attention(q_BHTK, k_BGTK, v_BGTK, mask)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self._part.head_dim))


class _Sinks(ShardedModule):
    """Those of this rank's heads."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, spec: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", spec, builder.parameter(spec))


def angles_for(rotary: Rotary, x_BTD: torch.Tensor, batch: Batch) -> Angles:
    """Of the positions of a batch, for all layers alike."""
    positions_BT = batch.positions_BT
    plain = plain_angles(rotary, x_BTD.shape[1], x_BTD.device, x_BTD.dtype)
    if positions_BT is None:
        return plain
    return batch.once(("angles", rotary, x_BTD.dtype), lambda: _angles(rotary, plain, positions_BT, batch))


def _angles(rotary: Rotary, plain: Angles, positions_BT: torch.Tensor, batch: Batch) -> Angles:
    """A document that is short has a short sample's angles, however long the sample is that it lies in."""
    found, limit = angles_of(plain, positions_BT), rotary.long_from
    if limit is None or len(plain[0]) <= limit or (lengths_BT := batch.lengths_BT) is None:
        return found
    short = plain_angles(rotary, limit, plain[0].device, plain[0].dtype)
    of_short = angles_of(short, positions_BT.clamp(max=limit - 1))
    is_long_B1T1 = (lengths_BT > limit).to(positions_BT.device)[:, None, :, None]
    cos_B1TR, sin_B1TR = (torch.where(is_long_B1T1, a, b) for a, b in zip(found, of_short, strict=True))
    return cos_B1TR, sin_B1TR
