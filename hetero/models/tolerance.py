"""How far apart two ways of computing one number may be."""

from __future__ import annotations

from dataclasses import dataclass


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
