"""Latent attention over this rank's heads.

Shapes: B sequences, T positions, D hidden, H heads of this rank, L latent, K key size, V value size, R of a key what
positions turn.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.rotary import Angles, turned
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.attention_module import angles_for
from hetero.models.parts.latent import LATENT_EPS, LatentAttention
from hetero.models.parts.projected_module import ProjectedModule


class LatentAttentionModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows."""

    def __init__(self, builder: Builder, part: LatentAttention, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self._part, self._operators = part, builder.operators
        if part.query_latent:
            self.q_down = Linear(builder, specs["q_down.weight"])
            self.q_norm = _LatentNorm(builder, specs["q_norm.weight"])
        self.q = Linear(builder, specs["q_up.weight" if part.query_latent else "q.weight"])
        self.kv_down, self.kv_up = (Linear(builder, specs[f"kv_{way}.weight"]) for way in ("down", "up"))
        self.kv_norm = _LatentNorm(builder, specs["kv_norm.weight"])
        self.o = SummedLinear(builder, specs["o.weight"])
        self._group, self._weight_gradients = builder.group, builder.weight_gradients

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        part = self._part
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        angles = angles_for(part.rotary, x_BTD, batch)
        q_BHTK = self._queries(x_BTD, angles)
        k_BHTK, v_BHTV = self._keys_and_values(x_BTD, angles)
        v_BHTK = F.pad(v_BHTV, (0, part.key - part.value)) if part.value < part.key else v_BHTV.contiguous()
        if (mask := batch.mask(x_BTD.shape[1])) is None:
            y_BHTK = self._operators.attention(q_BHTK, k_BHTK, v_BHTK)
        else:
            y_BHTK = self._operators.masked_attention(q_BHTK, k_BHTK, v_BHTK, mask)
        return y_BHTK[..., : part.value].transpose(1, 2).flatten(2)

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self.o(y)

    def _queries(self, x_BTD: torch.Tensor, angles: Angles) -> torch.Tensor:
        """With the scale of the scores, where that is not the operator's own."""
        part = self._part
        q_BTE = self.q(self.q_norm(self.q_down(x_BTD)) if part.query_latent else x_BTD)
        plain, turning = self._heads(q_BTE, part.key).split((part.plain, part.rotary.dim), -1)
        q_BHTK = torch.cat((plain, self._turned(turning, angles)), -1)
        factor = part.scale * part.key**0.5
        return q_BHTK if abs(factor - 1) < 1e-12 else q_BHTK * factor

    def _keys_and_values(self, x_BTD: torch.Tensor, angles: Angles) -> tuple[torch.Tensor, torch.Tensor]:
        part = self._part
        latent_BTL, turning = self.kv_down(x_BTD).split((part.kv_latent, part.rotary.dim), -1)
        both = self._heads(self.kv_up(self.kv_norm(latent_BTL)), part.plain + part.value)
        plain, v_BHTV = both.split((part.plain, part.value), -1)
        turned_BHTR = self._turned(turning[:, None], angles).expand(-1, plain.shape[1], -1, -1)
        return torch.cat((plain, turned_BHTR), -1), v_BHTV

    def _turned(self, x_BHTR: torch.Tensor, angles: Angles) -> torch.Tensor:
        return turned(x_BHTR, self._part.rotary, angles, self._operators.rotary)

    def _heads(self, x: torch.Tensor, width: int) -> torch.Tensor:
        return x.unflatten(-1, (-1, width)).transpose(1, 2)


class _LatentNorm(ShardedModule):
    """Through the backend's operator."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, spec: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", spec, builder.parameter(spec))
        self._rms_norm = builder.operators.rms_norm

    def forward(self, x_BTL: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x_BTL, self.weight, LATENT_EPS)
