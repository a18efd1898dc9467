"""The output projection and its loss with this rank's part of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.cross_entropy import cross_entropy_sum
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.head import Head


class HeadModule(ShardedModule):
    """x_BTD -> the sum of the token losses, a float32 scalar that is equal on every rank."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, part: Head, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        weight = specs["head.weight"]
        self.hold("weight", weight, builder.shared_parameter(weight))
        self._group = builder.group
        self._first = weight.layout.region(builder.group.rank)[0][0]

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BTV = F.linear(self._group.copy_in(x_BTD), self.weight)
        return cross_entropy_sum(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), self._group, self._first)
