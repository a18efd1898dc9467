"""What low-rank adapters add to a product."""

from __future__ import annotations

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.product import product
from hetero.layers.spec import AdapterSpec


class AdapterModule(ShardedModule):
    """x -> scale (x A^T) B^T: what this rank adds to its own result, which is summed over the ranks where that is."""

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, builder: Builder, spec: AdapterSpec) -> None:
        super().__init__()
        self.hold("a", spec.a, builder.parameter(spec.a))
        self.hold("b", spec.b, builder.parameter(spec.b))
        self._weight_gradients, self._deferred = builder.weight_gradients, builder.group.size > 1
        self._weight_gradients.weights |= {p for p in (self.a, self.b) if p.requires_grad}
        self._scale = spec.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = product(x, self.a, None, self._weight_gradients, self._deferred)
        return product(narrow * self._scale, self.b, None, self._weight_gradients, self._deferred)
