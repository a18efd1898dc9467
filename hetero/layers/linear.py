"""A matrix product with this rank's slice of a weight."""

from __future__ import annotations

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.product import product
from hetero.layers.spec import TensorSpec


class Linear(ShardedModule):
    """y = x W^T + b, W stored as (out, in). The layout says which of the two is cut; summing is left to the caller."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, builder: Builder, weight: TensorSpec, bias: TensorSpec | None = None) -> None:
        super().__init__()
        self.hold("weight", weight, builder.parameter(weight))
        if bias is None:
            self.bias = None
        else:
            self.hold("bias", bias, builder.parameter(bias))
        self._gradients = builder.weight_gradients
        self._gradients.weights.add(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight, self.bias, self._gradients)
