"""The output projection and its loss with this rank's part of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.sliced_loss import projected_loss_sum
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.head import Head


class HeadModule(ShardedModule):
    """x_BTD -> the sum of the token losses, a float32 scalar that is equal on every rank."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, builder: Builder, part: Head, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        weight = specs["head.weight"]
        self.hold("weight", weight, builder.shared_parameter(weight))
        if part.bias:
            self.hold("bias", specs["head.bias"], builder.parameter(specs["head.bias"]))
        else:
            self.bias = None
        self._group, self._slices, self._scale, self._cap = builder.group, part.slices, part.scale, part.cap
        self._first = weight.layout.region(builder.group.rank)[0][0]

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_ND, labels_N = self._group.copy_in(x_BTD).flatten(0, 1), batch.labels_BT.flatten()
        slices, bent = self._slices(batch.labels_BT.shape[1]), (self._scale, self._cap)
        return projected_loss_sum(x_ND, self.weight, labels_N, self._group, self._first, slices, *bent, self.bias)
