"""Embedding of tokens, and of positions, with this rank's rows of the tables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.group import TensorGroup
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.embedding import Embedding


class _Rows(ShardedModule):
    """Numbers to the rows that this rank has of a table, and to zeros where another has them."""

    weight: torch.Tensor

    def __init__(self, group: TensorGroup, spec: TensorSpec, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.hold("weight", spec, weight)
        self._whole = group.size == 1
        self._first, self._end = spec.layout.region(group.rank)[0]

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if self._whole:
            return F.embedding(numbers, self.weight)
        elsewhere = (numbers < self._first) | (numbers >= self._end)
        local = (numbers - self._first).masked_fill(elsewhere, 0)
        return F.embedding(local, self.weight).masked_fill(elsewhere[..., None], 0)


class EmbeddingModule(torch.nn.Module):
    """tokens_BT -> x_BTD."""

    def __init__(self, builder: Builder, part: Embedding, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self._group, self._scale = builder.group, part.scale
        tokens = specs["embedding.weight"]
        self.tokens = _Rows(builder.group, tokens, builder.shared_parameter(tokens))
        self.positions: _Rows | None = None
        if part.positions is not None:
            rows = specs["positions.weight"]
            self.positions = _Rows(builder.group, rows, builder.parameter(rows))

    def forward(self, x_BTD: torch.Tensor | None, batch: Batch) -> torch.Tensor:
        tokens_BT, positions_BT = batch.tokens_BT, batch.positions_BT
        found_BTD = self.tokens(tokens_BT)
        if self._scale != 1.0:
            found_BTD = found_BTD * torch.tensor(self._scale, dtype=found_BTD.dtype)
        if self.positions is not None:
            if positions_BT is None:
                positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
            found_BTD = found_BTD + self.positions(positions_BT)
        return self._group.reduce_out(found_BTD)
