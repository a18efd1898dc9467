"""Ways to make equal pipelines of some pools, many at once, and bounds on what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from balancer.search.expected import ExpectedPeriod
from balancer.search.grouping import Group, Segment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_NEAR = 0.85
"""How fast a way is by its bound, beside the fastest one, for a guess to look at it; or it has all stages."""


@dataclass(frozen=True, eq=False)
class Layouts:
    """Of some pools at given tps and one size of micro-batch: `pipelines`, ascending, and `stages` by pool (a row
    each). No pipeline gets from micro-batch to micro-batch in less than `period_s`, nor takes one there and back in
    less than `trip_s`."""

    pools: tuple[str, ...]
    tps: tuple[int, ...]
    micro_batch: int
    pipelines: Ints
    stages: Ints
    period_s: Floats
    trip_s: float
    expected: ExpectedPeriod

    @cached_property
    def depth(self) -> Ints:
        """Stages of a pipeline."""
        found: Ints = self.stages.sum(axis=1)
        return found

    @cached_property
    def fastest(self) -> Ints:
        """Of each number of pipelines, the row with the shortest period."""
        order = np.lexsort((self.period_s, self.pipelines))
        _, first = np.unique(self.pipelines[order], return_index=True)
        found: Ints = order[first]
        return found

    @property
    def roomiest(self) -> list[int]:
        """Of 1, 2, 4, ... pipelines, the row with the most stages."""
        most: dict[int, int] = {}
        for row, n in enumerate(map(int, self.pipelines)):
            if n & (n - 1) == 0 and (n not in most or self.depth[row] > self.depth[most[n]]):
                most[n] = row
        return list(most.values())

    @cached_property
    def likely(self) -> Ints:
        """Rows that a guess looks at."""
        rate = self.pipelines / self.period_s
        found: Ints = np.union1d(np.nonzero(rate >= _NEAR * rate.max())[0], self.fastest)
        return found

    @cached_property
    def expected_s(self) -> Floats:
        """A guess at the periods of the likely rows, with strategies that fit into memory."""
        found = np.maximum(self.period_s[self.likely], self.expected.period_s(
            self.pipelines[self.likely], self.stages[self.likely]))  # fmt: skip
        return found

    def sequences(self, within_s: float, fills: float) -> Floats:
        """That each way gets done in some time at most, if a pipeline fills for this part of what a micro-batch takes
        at least."""
        return sequences(within_s, fills, self.pipelines * self.micro_batch, self.period_s, self.trip_s)

    def roomiest_group(self, row: int, memory: Callable[[str], int]) -> Group:
        """With the pools first of whose chips each has most memory."""
        return max(self.groups(row), key=lambda group: [memory(segment.pool) for segment in group.segments])

    def groups(self, way: int) -> Iterator[Group]:
        """The orders in which the pools may follow each other, the first pools' first."""
        segments = [Segment(*each) for each in zip(self.pools, self.tps, map(int, self.stages[way]), strict=True)]
        for order in permutations(segments):
            yield Group(order, int(self.pipelines[way]), self.micro_batch)


def sequences(within_s: float, fills: float, at_once: Ints, period_s: Floats, trip_s: Floats | float) -> Floats:
    """Whole micro-batches, of `at_once` sequences, that are done by then."""
    fill = np.maximum(0.0, fills * trip_s - period_s)
    each = np.floor((within_s - fill) / period_s * (1 + 1e-9) + 1e-9)
    found: Floats = np.maximum(each, 0.0) * at_once
    return found
