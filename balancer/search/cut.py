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
CutBand = NDArray[np.float64]
"""What a stage takes, by the place where it ends, and by that where it begins from as many before as there are columns
on, to the one right before; infinite where it doesn't fit, or before the first place."""


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

    def band(self, places: Sequence[int], most_s: float = inf) -> CutBand:
        """Seconds between these places, in as few columns as hold all ranges of up to `most_s`."""
        at = np.array(places)
        seconds, needed = np.array(self.seconds)[at], np.array(self.bytes)[at]
        longest = np.arange(len(at)) - np.searchsorted(seconds, seconds - most_s * _AS_GOOD)
        first = np.arange(len(at))[:, None] - np.arange(max(1, min(longest.max(), len(at) - 1)), 0, -1)
        fits = (first >= 0) & (needed[:, None] - needed[first] <= self.limit_bytes)
        found: CutBand = np.where(fits, seconds[:, None] - seconds[first], inf)
        return found


def cut(stages: Sequence[StageCost], places: Sequence[int], most_s: float = inf) -> tuple[Range, ...] | None:
    """One non-empty range of units per stage, cut at `places` (ascending, first 0, last n) alone; None if none fits, or
    none whose slowest stage takes up to `most_s`."""
    bands = [stage.band(places, most_s) for stage in stages]
    slowest_s = shortest(bands)
    if slowest_s == inf or slowest_s > most_s * _AS_GOOD:
        return None
    ranges = spread(bands, slowest_s)
    assert ranges is not None
    return tuple((places[i], places[j]) for i, j in ranges)


def shortest(bands: Sequence[CutBand]) -> float:
    """What the slowest stage takes at best, of one range of places for each band; infinite if none fits. The dynamic
    program of min over i of max(best(s - 1, i), seconds_s(i, j)), all i and j of a stage at once."""
    best = _begin(bands)
    for band in bands:
        best = np.maximum(_before(best, band), band).min(axis=1)
    return float(best[-1])


def spread(bands: Sequence[CutBand], most_s: float) -> tuple[Range, ...] | None:
    """The ranges of places under which all stages together take least, none of them more than `most_s`; of such, even
    ones. None if there are none."""
    best, steps, places = _begin(bands), [], np.arange(len(bands[0]))
    for band in bands:
        own = np.where(band <= most_s * _AS_GOOD, band + _EVENLY / (most_s or 1.0) * band * band, inf)
        total = _before(best, band) + own
        step = total.argmin(axis=1)
        best = total[places, step]
        steps.append(places - band.shape[1] + step)
    if best[-1] == inf:
        return None
    bounds = [len(best) - 1]
    for step in reversed(steps):
        bounds.append(int(step[bounds[-1]]))
    return tuple(pairwise(reversed(bounds)))


def _begin(bands: Sequence[CutBand]) -> NDArray[np.float64]:
    best = np.full(len(bands[0]), inf)
    best[0] = 0.0
    return best


def _before(best: NDArray[np.float64], band: CutBand) -> NDArray[np.float64]:
    """What is best up to the place where each range begins."""
    width = band.shape[1]
    padded = np.concatenate((np.full(width, inf), best[:-1]))
    return np.ndarray(band.shape, padded.dtype, padded, strides=2 * padded.strides)  # a window for each row
