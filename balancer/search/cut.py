"""Exact cuts: which consecutive units each stage gets, so that all fit and the slowest stage is as fast as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

Range = tuple[int, int]


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


_Best = tuple[float, float, int]  # slowest stage; sum of squares, to spread what is left evenly; where the stage begins
_NONE: _Best = (inf, inf, -1)


def cut(stages: Sequence[StageCost], places: Sequence[int]) -> tuple[Range, ...] | None:
    """One non-empty range of units per stage, cut at `places` (ascending, first 0, last n) alone; None if none fits.

    The dynamic program of min over i of max(best(s - 1, i), seconds_s(i, j)): O(stages * places^2) at worst, nearly
    linear in practice, since each search begins where the one before ended and stops where no better can follow.
    """
    rows: list[list[_Best]] = [[(0.0, 0.0, 0)] + [_NONE] * (len(places) - 1)]
    for stage in stages:
        rows.append(_row(stage, places, rows[-1]))
    if rows[-1][-1][0] == inf:
        return None
    bounds = [len(places) - 1]
    for row in reversed(rows[1:]):
        bounds.append(row[bounds[-1]][2])
    return tuple((places[i], places[j]) for i, j in pairwise(reversed(bounds)))


def _row(stage: StageCost, places: Sequence[int], before: Sequence[_Best]) -> list[_Best]:
    """The best way to end this stage at each place, given that of the stage before."""
    least_from = list(accumulate((best[0] for best in reversed(before)), min))[::-1]
    row, guess = [_NONE], 0
    for j in range(1, len(places)):
        row.append(_best_end(stage, places, before, least_from, j, min(guess, j - 1)))
        guess = max(row[-1][2], 0)
    return row


def _best_end(
    stage: StageCost, places: Sequence[int], before: Sequence[_Best], least_from: Sequence[float], j: int, guess: int
) -> _Best:
    """Tries beginnings from the guess down while the stage itself isn't too long, then up while what lies before may
    still be short enough."""
    best, seconds, needed, end = _NONE, stage.seconds, stage.bytes, places[j]
    least_begin = needed[end] - stage.limit_bytes
    for i in range(guess, -1, -1):
        own = seconds[end] - seconds[places[i]]
        if own > best[0] or needed[places[i]] < least_begin:
            break
        if before[i][0] <= best[0]:
            best = min(best, (max(before[i][0], own), before[i][1] + own * own, i))
    for i in range(guess + 1, j):
        if least_from[i] > best[0]:
            break
        own = seconds[end] - seconds[places[i]]
        if own <= best[0] and before[i][0] <= best[0] and needed[places[i]] >= least_begin:
            best = min(best, (max(before[i][0], own), before[i][1] + own * own, i))
    return best
