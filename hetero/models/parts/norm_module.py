"""Normalisation over the last dimension, through the backend's operators."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.norm import LayerNorm, RMSNorm


class RMSNormModule(ShardedModule):
    """By the root of the mean square."""

    weight: torch.Tensor

    def __init__(self, builder: Builder, part: RMSNorm, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        weight = specs[f"{part.name}.weight"]
        self.hold("weight", weight, builder.parameter(weight))
        operators = builder.operators
        self._rms_norm = operators.offset_rms_norm if part.offset else operators.rms_norm
        self._eps = part.eps

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._rms_norm(x_BTD, self.weight, self._eps)


class LayerNormModule(ShardedModule):
    """By mean and variance."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, builder: Builder, part: LayerNorm, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        for name in ("weight", "bias")[: 1 + part.bias]:
            spec = specs[f"{part.name}.{name}"]
            self.hold(name, spec, builder.parameter(spec))
        if not part.bias:
            self.bias = None
        self._layer_norm, self._eps = builder.operators.layer_norm, part.eps

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._layer_norm(x_BTD, self.weight, self.bias, self._eps)
