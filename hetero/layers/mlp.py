"""The SwiGLU block, its inner dimension cut over the ranks (unevenly where it does not divide)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from hetero.layers.builder import Builder
from hetero.layers.linear import Linear
from hetero.layers.spec import TensorSpec


class SwiGLU(nn.Module):
    """x_BTD -> down(silu(gate(x)) * up(x)), (B, T, D), whole on every rank; `specs` holds "gate.weight" and so on."""

    def __init__(self, builder: Builder, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.gate, self.up, self.down = (Linear(builder, specs[f"{name}.weight"]) for name in ("gate", "up", "down"))
        self._group, self._swiglu = builder.group, builder.operators.swiglu

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD)
        return self._group.reduce_out(self.down(self._swiglu(self.gate(x_BTD), self.up(x_BTD))))
