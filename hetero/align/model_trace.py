"""What a model computed on a batch, by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hetero.align.shards import Shards


@dataclass(frozen=True)
class ModelTrace:
    """Of each unit in model order, detached, on the CPU.

    values       what it gave: the residual stream (B, T, D), of the last one the sum of the token losses
    gradients    of the loss by each value; of the last one it is 1
    operators    what those inside it gave, by name, as far as they are known
    tensors      gradients by logical name, whole
    computed_by  which ranks computed each unit, in words, where it was not one process
    """

    values: Sequence[torch.Tensor]
    gradients: Sequence[torch.Tensor]
    operators: Sequence[Mapping[str, torch.Tensor | Shards]]
    tensors: Mapping[str, torch.Tensor]
    computed_by: Sequence[str] = ()
