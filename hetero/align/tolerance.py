"""How far apart two ways of computing one number may be, and how that is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """Relative errors: `alone` of a unit that is given what the reference's is, `whole` of one behind all others. The
    norm of a tensor's gradient is taken to be at least a `share` of that of all: its roundings are its neighbours'."""

    alone: float
    whole: float
    share: float = 1e-3


TOLERANCES = {
    "float32": Tolerance(1e-5, 1e-5),
    "float16": Tolerance(4e-3, 1e-2, 1e-2),
    "bfloat16": Tolerance(3e-2, 8e-2, 1e-2),
}
"""By the coarser type of the two sides."""


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
