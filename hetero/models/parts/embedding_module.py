"""Token embedding with this rank's rows of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.embedding import Embedding


class EmbeddingModule(ShardedModule):
    """tokens_BT -> x_BTD. Each rank looks up the tokens that it has; the others add zeros."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, part: Embedding, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        weight = specs["embedding.weight"]
        self.hold("weight", weight, builder.shared_parameter(weight))
        self._group = builder.group
        self._first, self._end = weight.layout.region(builder.group.rank)[0]

    def forward(self, x_BTD: torch.Tensor | None, batch: Batch) -> torch.Tensor:
        tokens_BT = batch.tokens_BT
        if self._group.size == 1:
            return F.embedding(tokens_BT, self.weight)
        elsewhere_BT = (tokens_BT < self._first) | (tokens_BT >= self._end)
        local_BT = (tokens_BT - self._first).masked_fill(elsewhere_BT, 0)
        found_BTD = F.embedding(local_BT, self.weight).masked_fill(elsewhere_BT[..., None], 0)
        return self._group.reduce_out(found_BTD)
