"""The output projection with its loss, its vocabulary cut over the ranks (unevenly where it does not divide)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.cross_entropy import cross_entropy_sum
from hetero.layers.spec import TensorSpec


class VocabHead(ShardedModule):
    """x_BTD, labels_BT (int64) -> the sum of the token losses, a float32 scalar that is equal on every rank."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, weight: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", weight, builder.shared_parameter(weight))
        self._group = builder.group
        self._first = weight.layout.region(builder.group.rank)[0][0]

    def forward(self, x_BTD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        return cross_entropy_sum(self.logits(x_BTD).flatten(0, 1), labels_BT.flatten(), self._group, self._first)

    def logits(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, this rank's part of the vocabulary)"""
        return F.linear(self._group.copy_in(x_BTD), self.weight)
