"""The SwiGLU block with this rank's slice of its inner dimension."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.mlp import SwiGLU
from hetero.models.parts.projected_module import ProjectedModule


class SwiGLUModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows."""

    def __init__(self, builder: Builder, part: SwiGLU, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.gate, self.up = (Linear(builder, specs[f"{name}.weight"]) for name in ("gate", "up"))
        self.down = SummedLinear(builder, specs["down.weight"])
        self._group, self._weight_gradients = builder.group, builder.weight_gradients
        self._swiglu = builder.operators.swiglu

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        return self._swiglu(self.gate(x_BTD), self.up(x_BTD))

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self.down(y)
