"""Token embedding, its vocabulary cut over the ranks (unevenly where it does not divide)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec


class VocabEmbedding(ShardedModule):
    """tokens_BT (int64) -> x_BTD. Each rank looks up the tokens that it has; the others add zeros."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, weight: TensorSpec) -> None:
        super().__init__()
        self.hold("weight", weight, builder.shared_parameter(weight))
        self._group = builder.group
        self._first, self._end = weight.layout.region(builder.group.rank)[0]

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        if self._group.size == 1:
            return F.embedding(tokens_BT, self.weight)
        elsewhere_BT = (tokens_BT < self._first) | (tokens_BT >= self._end)
        local_BT = (tokens_BT - self._first).masked_fill(elsewhere_BT, 0)
        x_BTD = F.embedding(local_BT, self.weight).masked_fill(elsewhere_BT[..., None], 0)
        return self._group.reduce_out(x_BTD)
