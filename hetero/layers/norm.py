"""Root-mean-square normalisation over the last dimension, whole on every rank."""

from __future__ import annotations

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec


class RMSNorm(ShardedModule):
    """x / rms(x) * weight, through the backend's operator."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, weight: TensorSpec, eps: float) -> None:
        super().__init__()
        self.hold("weight", weight, builder.parameter(weight))
        self._rms_norm = builder.operators.rms_norm
        self._eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x, self.weight, self._eps)
