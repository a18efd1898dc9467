"""What ranks gave of one value, each its part, and the value that it is. Shapes: B sequences, T positions, D hidden, S
rows of a rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Parts = Sequence[torch.Tensor]
"""Of one micro-batch, from each rank of a tensor-parallel group, in their order."""


@dataclass(frozen=True)
class Shards:
    """Of each micro-batch, in the order of the samples."""

    parts: Sequence[Parts]

    def whole(self, shape: Sequence[int]) -> torch.Tensor | None:
        """Of all samples, in float32; None where the parts do not make up this shape. Numbers add up."""
        made = [_joined([part.float() for part in parts], tuple(shape)) for parts in self.parts]
        found = [one for one in made if one is not None]
        if len(found) < len(made) or (shape and sum(map(torch.numel, found)) != math.prod(shape)):
            return None
        return torch.cat(found).reshape(tuple(shape)) if shape else torch.stack(found).sum()


def _joined(parts: Parts, shape: tuple[int, ...]) -> torch.Tensor | None:
    """`shape` is that of all samples: what it says of the first dimension is not looked at."""
    first = parts[0]
    if first.dim() != len(shape):
        return None
    cut = [dim for dim in range(1, len(shape)) if first.shape[dim] != shape[dim]]
    if not cut:
        return _whole(parts)
    return _along(parts, cut[0], shape[cut[0]]) if len(cut) == 1 else None


def _whole(parts: Parts) -> torch.Tensor:
    """Each rank has all of it; or, where they differ, what it adds to the sum."""
    return parts[0] if all(torch.equal(parts[0], part) for part in parts[1:]) else torch.stack(list(parts)).sum(0)


def _along(parts: Parts, dim: int, extent: int) -> torch.Tensor | None:
    """Parts of one dimension, which several ranks in a row may have alike, as heads of keys."""
    if sum(part.shape[dim] for part in parts) != extent:
        copies, odd = divmod(len(parts) * parts[0].shape[dim], extent)
        if odd or not copies or len(parts) % copies:
            return None
        parts = parts[::copies]
    if parts[0].dim() == 3 and dim == 1:  # rows are of all sequences end to end, and x_BSD looks as if it had as many
        return torch.cat([part.flatten(0, 1) for part in parts]).view(parts[0].shape[0], extent, -1)
    return torch.cat(list(parts), dim)
