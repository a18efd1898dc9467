"""Root-mean-square normalisation over the last dimension."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.norm import RMSNorm


class RMSNormModule(ShardedModule):
    """Through the backend's operator."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, part: RMSNorm, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        weight = specs["norm.weight"]
        self.hold("weight", weight, builder.parameter(weight))
        self._rms_norm = builder.operators.rms_norm
        self._eps = part.eps

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._rms_norm(x_BTD, self.weight, self._eps)
