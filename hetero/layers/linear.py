"""A matrix product with this rank's slice of a weight."""

from __future__ import annotations

import torch

from hetero.layers.adapter import AdapterModule
from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.product import product, summed_product
from hetero.layers.spec import TensorSpec


class WeightedModule(ShardedModule):
    """Products with a weight, whose gradient `weight_gradients` makes if it trains, and perhaps a bias."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, builder: Builder, weight: TensorSpec, bias: TensorSpec | None = None) -> None:
        super().__init__()
        self.hold("weight", weight, builder.parameter(weight))
        if bias is None:
            self.bias = None
        else:
            self.hold("bias", bias, builder.parameter(bias))
        self._weight_gradients = builder.weight_gradients
        if weight.trains:
            self._weight_gradients.weights.add(self.weight)


class Linear(WeightedModule):
    """y = x W^T + b, W stored as (out, in), and what an adapter of the weight adds. Where there are several ranks, the
    gradient of its weight is made while a `copy_in` that is given `flush` sums, or at the end of the backward."""

    def __init__(self, builder: Builder, weight: TensorSpec, bias: TensorSpec | None = None) -> None:
        super().__init__(builder, weight, bias)
        self._group = builder.group
        self.adapter = AdapterModule(builder, found) if (found := builder.adapters.get(weight.name)) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = product(x, self.weight, self.bias, self._weight_gradients, deferred=self._group.size > 1)
        return y if self.adapter is None else y + self.adapter(x)


class SummedLinear(Linear):
    """The last product of a split part: each rank has some of its inputs, and what it makes of them is summed and
    handed out as `TensorGroup.reduce_out` does. A bias, whole on every rank, is added to the sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._group.size == 1:
            return super().forward(x)
        added = None if self.adapter is None else self.adapter(x)
        if self._group.slices == 1:
            own = product(x, self.weight, None, self._weight_gradients, deferred=True)
            total = self._group.reduce_out(own if added is None else own + added)
        else:
            total = summed_product(x, self.weight, self._weight_gradients, self._group, added)
        return total if self.bias is None else total + self.bias
