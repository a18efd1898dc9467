"""The MLP with this rank's slice of its inner dimension."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder
from hetero.layers.linear import Linear, SummedLinear
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.mlp import MLP
from hetero.models.parts.projected_module import ProjectedModule

_APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}


class MLPModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows."""

    def __init__(self, builder: Builder, part: MLP, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        for name in part.inward:
            self.add_module(name, Linear(builder, specs[f"{name}.weight"], specs.get(f"{name}.bias")))
        self.down = SummedLinear(builder, specs["down.weight"], specs.get("down.bias"))
        self._inward, self._activation = part.inward, part.activation
        self._group, self._weight_gradients = builder.group, builder.weight_gradients
        self._operators = builder.operators

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        first, *second = (self.get_submodule(name)(x_BTD) for name in self._inward)
        if self._activation == "silu":
            return self._operators.swiglu(first, *second)
        approximate = _APPROXIMATE[self._activation]
        if second:
            return self._operators.geglu(first, second[0], approximate)
        return self._operators.gelu(first, approximate)

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self.down(y)
