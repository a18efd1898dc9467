"""All layouts of some pools as one list: the best of them at any time, and which those are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.search.layouts import Layouts, sequences

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LayoutRow(NamedTuple):
    """A row of layouts."""

    layouts: Layouts
    row: int

    @property
    def pipelines(self) -> int:
        return int(self.layouts.pipelines[self.row])

    @property
    def at_once(self) -> int:
        """Sequences in a micro-batch of each pipeline."""
        return self.pipelines * self.layouts.micro_batch

    @property
    def depth(self) -> int:
        return int(self.layouts.depth[self.row])

    def sequences(self, within_s: float, fills: float) -> float:
        """That all pipelines get done in some time at most."""
        period_s = float(self.layouts.period_s[self.row])
        each = int((within_s - max(0.0, fills * self.layouts.trip_s - period_s)) / period_s * (1 + 1e-9) + 1e-9)
        return self.at_once * max(0.0, each)

    @property
    def rate(self) -> float:
        """Sequences per second of a full pipeline, at most."""
        return self.at_once / float(self.layouts.period_s[self.row])

    @property
    def expected_rate(self) -> float:
        """The same by a guess, of a likely row."""
        return self.at_once / float(self.layouts.expected_s[np.searchsorted(self.layouts.likely, self.row)])


class _Likely(NamedTuple):
    at_once: Ints
    expected_s: Floats
    depth: Ints
    layouts: Ints
    row: Ints

    def sequences(self, within_s: float) -> Floats:
        """With parts of micro-batches."""
        found: Floats = np.maximum(0.0, within_s / self.expected_s - (self.depth - 1)) * self.at_once
        return found


class JoinedPools:
    """Of some pools that form pipelines together."""

    def __init__(self, layouts: Sequence[Layouts]) -> None:
        self.layouts = layouts

    def __bool__(self) -> bool:
        return bool(self.layouts)

    @cached_property
    def ways(self) -> int:
        """How many there are."""
        return sum(len(one.pipelines) for one in self.layouts)

    @cached_property
    def fastest(self) -> float:
        """Sequences per second of the best way, once it is full."""
        at_once, period_s, _ = self._fastest
        return float((at_once / period_s).max())

    def most(self, within_s: float, fills: float) -> float:
        """Sequences that the best way gets done in some time, at most."""
        return float(self._done(within_s, fills).max())

    def expected(self, within_s: float) -> float:
        """The same by a guess."""
        return float(self._likely.sequences(within_s).max())

    def likeliest(self, within_s: float, most: int) -> list[LayoutRow]:
        """Those that get most done by a guess, so many of one tp for each pool at most, and twice as many in all."""
        likely, found, seen = self._likely, list[LayoutRow](), Counter[int]()
        done = likely.sequences(within_s)
        for at in np.argsort(-done, kind="stable"):
            if len(found) == 2 * most or done[at] <= 0:
                break
            number = int(likely.layouts[at])
            if seen[number] < most:
                seen[number] += 1
                found.append(LayoutRow(self.layouts[number], int(likely.row[at])))
        return found

    def able(self, least: float, within_s: float, fills: float, most: int) -> list[tuple[float, LayoutRow]] | None:
        """Every way that may get at least as much done, with how much, the most first; None if there are more than so
        many."""
        if (self._done(within_s, fills) >= least).sum() > most:
            return None
        found: list[tuple[float, LayoutRow]] = []
        for one in self.layouts:
            done = one.sequences(within_s, fills)
            found += [(float(done[row]), LayoutRow(one, int(row))) for row in np.nonzero(done >= least)[0]]
            if len(found) > most:
                return None
        return sorted(found, key=lambda way: -way[0])

    def _done(self, within_s: float, fills: float) -> Floats:
        at_once, period_s, trip_s = self._fastest
        return sequences(within_s, fills, at_once, period_s, trip_s)

    @cached_property
    def _fastest(self) -> tuple[Ints, Floats, Floats]:
        """Sequences at once, periods and trips, of the fastest way of each number of pipelines."""
        at_once = [one.pipelines[one.fastest] * one.micro_batch for one in self.layouts]
        periods = [one.period_s[one.fastest] for one in self.layouts]
        trips = [np.full(len(one.fastest), one.trip_s) for one in self.layouts]
        return np.concatenate(at_once), np.concatenate(periods), np.concatenate(trips)

    @cached_property
    def _likely(self) -> _Likely:
        rows = [
            (one.pipelines[one.likely] * one.micro_batch, one.expected_s, one.depth[one.likely],
             np.full(len(one.likely), number), one.likely)
            for number, one in enumerate(self.layouts)
        ]  # fmt: skip
        return _Likely(*map(np.concatenate, zip(*rows, strict=True)))
