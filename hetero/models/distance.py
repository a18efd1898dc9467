"""How far apart two tensors are."""

from __future__ import annotations

import math

import torch


def relative(found: torch.Tensor, wanted: torch.Tensor, least: float = 0.0) -> float:
    """|found - wanted| / |wanted| in the Euclidean norm of all elements, where |wanted| is at least `least`. Infinite
    where the difference is not finite, or the numbers of elements are not the same."""
    if found.numel() != wanted.numel():
        return math.inf
    difference = length(found.float() - wanted.reshape(found.shape).float())
    if difference == 0.0:
        return 0.0
    scale = max(length(wanted), least)
    return difference / scale if math.isfinite(difference) and scale > 0.0 else math.inf


def length(x: torch.Tensor) -> float:
    """The Euclidean norm of all elements."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))
