"""Shapes: layouts of disjoint pools that together make a plan. Bounds on what the best of them takes, and guesses which
that is, over all shapes at once: at a time that is given, each part does what its best layout can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import factorial, inf, prod
from typing import NamedTuple

import numpy as np

from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.bounds import SAFE
from balancer.search.grouping import Grouping
from balancer.search.layouts import Layouts, LayoutSpace, partitions, subsets
from balancer.simulate.sync import HeldParameters, expected_sync_s

_PROMISING = 24
"""Layouts of a part that are joined with those of others, of a part alone."""
_EXACT = 1e-4
"""How near a bound is found."""
_ENDLESS = 1e6


class LayoutRow(NamedTuple):
    """A row of layouts."""

    layouts: Layouts
    row: int

    @property
    def pipelines(self) -> int:
        return int(self.layouts.pipelines[self.row])

    def sequences(self, within_s: float, fills: float) -> float:
        """That all pipelines get done in some time at most."""
        period_s = float(self.layouts.period_s[self.row])
        each = int((within_s - max(0.0, fills * self.layouts.trip_s - period_s)) / period_s * (1 + 1e-9) + 1e-9)
        return self.pipelines * self.layouts.micro_batch * max(0.0, each)

    def expected(self) -> tuple[float, float]:
        """Sequences per second once it is full, and how many fewer it gets done because it has to fill."""
        size = self.pipelines * self.layouts.micro_batch
        return size / float(self.layouts.expected_s[self.row]), size * (int(self.layouts.stages[self.row].sum()) - 1.0)


Shape = tuple[LayoutRow, ...]


class Shapes:
    """Of a problem. `fills` is the part of a micro-batch's way there and back for which any schedule must fill."""

    def __init__(self, problem: Problem, space: LayoutSpace) -> None:
        self.problem, self.space = problem, space
        self.fills = 0.0 if any(schedule(name).timed for name in problem.schedules) else 1.0
        names = [pool.name for pool in problem.topology.pools]
        every = (parts for some in subsets(problem) for parts in partitions(some))
        self.parts = [sorted(parts, key=lambda part: names.index(part[0])) for parts in every]

    @property
    def size(self) -> int:
        """Shapes in every order and under every schedule, as if each were pipelines of several stages."""
        orders = (
            prod(factorial(len(part)) * sum(len(one.pipelines) for one in self.space.of(part)) for part in parts)
            for parts in self.parts
        )
        return sum(orders) * len(self.problem.schedules)

    def bound_s(self, parts: Sequence[tuple[str, ...]]) -> float:
        """No plan with these pools in common pipelines is faster; infinite without one."""
        return SAFE * self._time(parts, guess=False)

    def of_all(self, parts: Sequence[tuple[str, ...]], within_s: float, most: int) -> list[tuple[float, Shape]] | None:
        """Every shape that may be faster, with its bound; None if there are more than so many."""
        batch = self.problem.workload.global_batch
        done = [[layouts.sequences(within_s, self.fills) for layouts in self.space.of(part)] for part in parts]
        if not all(done):
            return []
        best = [max(float(each.max()) for each in one) for one in done]
        lists = []
        for part, one, own in zip(parts, done, best, strict=True):
            least = max(1.0, batch - sum(best) + own)
            rows = [np.nonzero(each >= least)[0] for each in one]
            if sum(map(len, rows)) > most:
                return None
            ways = [
                (float(each[row]), LayoutRow(layouts, int(row)))
                for layouts, each, some in zip(self.space.of(part), one, rows, strict=True)
                for row in some
            ]
            lists.append(sorted(ways, key=lambda way: -way[0]))
        if not all(lists):
            return []
        found: list[tuple[float, Shape]] = []
        for shape in self._enough(lists, batch):
            if len(found) == most:
                return None
            if self._feeds(shape):
                found.append((SAFE * self.solve(shape), shape))
        return found

    def promising(self, parts: Sequence[tuple[str, ...]]) -> Iterator[tuple[float, Shape]]:
        """A few shapes with a guess at their steps: of each part the layouts that get most done by the end of the best
        of them."""
        within_s = self._time(parts, guess=True)
        if within_s == inf:
            return
        most = max(3, int(_PROMISING ** (1 / len(parts))))
        lists = []
        for part in parts:
            ways = []
            for layouts in self.space.of(part):
                done = layouts.expected_sequences(within_s)
                best = np.argsort(-done, kind="stable")[:most]
                ways += [(float(done[row]), LayoutRow(layouts, int(row))) for row in best if done[row] > 0]
            lists.append([way for _, way in sorted(ways, key=lambda way: -way[0])[: 2 * most]])
        for shape in product(*lists):
            if self._feeds(shape):
                rates, missing = zip(*(way.expected() for way in shape), strict=True)
                step_s = (self.problem.workload.global_batch + sum(missing)) / sum(rates)
                yield step_s + self._sync_s(shape), shape

    def _sync_s(self, shape: Shape) -> float:
        """As if each pool of a part held as much of the model."""
        topology, work = self.problem.topology, self.problem.workload
        model = sum(unit.trained for unit in work.units)
        held = [
            HeldParameters(way.pipelines, {pool: model // len(way.layouts.pools) for pool in way.layouts.pools})
            for way in shape
        ]
        return expected_sync_s(held, topology, work) / self.space.pairs if len(shape) > 1 else 0.0

    def groupings(self, shape: Shape) -> Iterator[Grouping]:
        """Its orders and schedules, the usual schedule first, and pools with much memory first."""
        stages = [sum(map(int, way.layouts.stages[way.row])) for way in shape]
        names = self.problem.schedules if max(stages) > 1 else self.problem.schedules[:1]
        for groups in product(*(list(way.layouts.groups(way.row)) for way in shape)):
            for name in names:
                yield Grouping(groups, name)

    def solve(self, shape: Shape) -> float:
        """The least time in which a shape's pipelines get the batch done."""
        batch = self.problem.workload.global_batch
        rate = sum(way.pipelines * way.layouts.micro_batch / float(way.layouts.period_s[way.row]) for way in shape)
        return _least(lambda t: sum(way.sequences(t, self.fills) for way in shape) >= batch, batch / rate)

    def _time(self, parts: Sequence[tuple[str, ...]], guess: bool) -> float:
        if not all(self.space.of(part) for part in parts):
            return inf
        batch = self.problem.workload.global_batch
        rate = sum(max(one.fastest for one in self.space.of(part)) for part in parts)
        return _least(lambda t: sum(self._most(part, t, guess) for part in parts) >= batch, batch / rate)

    def _most(self, part: tuple[str, ...], within_s: float, guess: bool) -> float:
        found = self.space.of(part)
        if guess:
            return max(float(one.expected_sequences(within_s).max()) for one in found)
        return max(float(one.sequences(within_s, self.fills).max()) for one in found)

    def _feeds(self, shape: Shape) -> bool:
        """Whether each pipeline gets a micro-batch."""
        return sum(way.pipelines * way.layouts.micro_batch for way in shape) <= self.problem.workload.global_batch

    def _enough(self, lists: list[list[tuple[float, LayoutRow]]], batch: float) -> Iterator[Shape]:
        """Joined ways, given by falling numbers of sequences, that get the batch done."""
        if not lists:
            if batch <= 0:
                yield ()
            return
        rest = sum(ways[0][0] for ways in lists[1:])
        for done, way in lists[0]:
            if done + rest < batch:
                return
            for more in self._enough(lists[1:], batch - done):
                yield (way, *more)


def _least(enough: Callable[[float], bool], low: float) -> float:
    """The smallest time that is enough, or a little less, from one on that is too little; infinite if none is."""
    first = high = low = low * (1 - _EXACT)
    while not enough(high):
        low, high = high, high * 1.3
        if high > first * _ENDLESS:
            return inf
    while high > low * (1 + _EXACT):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return low
