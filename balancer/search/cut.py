"""Exact cuts: which consecutive units each stage gets, so that all fit and the slowest stage is as fast as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from balancer.plan.plan import Range

_EVENLY = 0.01
"""How much a stage's square counts beside itself: of cuts that are as good, the more even one is taken."""
_AS_GOOD = 1 + 1e-12


@dataclass(frozen=True)
class StageCost:
    """One stage in the order of the pipeline: prefix sums over units (n + 1 values, the first 0) of its `seconds` per
    micro-batch and of the `bytes` that a unit needs on one of its chips, of which there are `limit_bytes`."""

    seconds: tuple[float, ...]
    bytes: tuple[float, ...] = ()
    limit_bytes: float = inf

    @staticmethod
    def of_units(seconds: Sequence[float], bytes_: Sequence[float] = (), limit_bytes: float = inf) -> StageCost:
        sums = tuple(accumulate(bytes_, initial=0.0)) if bytes_ else (0.0,) * (len(seconds) + 1)
        return StageCost(tuple(accumulate(seconds, initial=0.0)), sums, limit_bytes)

    def between(self, units: Range) -> float:
        """Seconds of a range of units."""
        return self.seconds[units[1]] - self.seconds[units[0]]

    def matrix(self, places: Sequence[int]) -> NDArray[np.float64]:
        """Seconds by where a stage ends and begins; infinite where it doesn't fit or would be empty."""
        at = np.array(places)
        seconds, needed = np.array(self.seconds)[at], np.array(self.bytes)[at]
        fits = (needed[:, None] - needed[None, :] <= self.limit_bytes) & np.tri(len(at), k=-1, dtype=bool)
        found: NDArray[np.float64] = np.where(fits, seconds[:, None] - seconds[None, :], inf)
        return found


def cut(stages: Sequence[StageCost], places: Sequence[int]) -> tuple[Range, ...] | None:
    """One non-empty range of units per stage, cut at `places` (ascending, first 0, last n) alone; None if none fits."""
    matrices = [stage.matrix(places) for stage in stages]
    slowest_s = shortest(matrices)
    if slowest_s == inf:
        return None
    ranges = spread(matrices, slowest_s)
    assert ranges is not None
    return tuple((places[i], places[j]) for i, j in ranges)


def shortest(matrices: Sequence[NDArray[np.float64]]) -> float:
    """What the slowest stage takes at best, of one range of places for each matrix; infinite if none fits. The dynamic
    program of min over i of max(best(s - 1, i), seconds_s(j, i)), all i and j of a stage at once."""
    best = _begin(matrices)
    for matrix in matrices:
        best = np.maximum(best, matrix).min(axis=1)
    return float(best[-1])


def spread(matrices: Sequence[NDArray[np.float64]], most_s: float) -> tuple[Range, ...] | None:
    """The ranges of places under which all stages together take least, none of them more than `most_s`; of such, even
    ones. None if there are none."""
    best, steps, places = _begin(matrices), [], np.arange(len(matrices[0]))
    for matrix in matrices:
        own = np.where(matrix <= most_s * _AS_GOOD, matrix + _EVENLY / (most_s or 1.0) * matrix * matrix, inf)
        total = own + best
        steps.append(total.argmin(axis=1))
        best = total[places, steps[-1]]
    if best[-1] == inf:
        return None
    bounds = [len(best) - 1]
    for step in reversed(steps):
        bounds.append(int(step[bounds[-1]]))
    return tuple(pairwise(reversed(bounds)))


def _begin(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    best = np.full(len(matrices[0]), inf)
    best[0] = 0.0
    return best
