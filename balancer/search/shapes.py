"""Shapes: layouts of disjoint pools that together make a plan. Bounds on what the best of them takes, and guesses which
that is, over all shapes at once: at a time that is given, each part does what its best layout can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import factorial, inf, prod

from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.bounds import SAFE
from balancer.search.grouping import Grouping
from balancer.search.joined import LayoutRow
from balancer.search.space import LayoutSpace, partitions, subsets
from balancer.simulate.sync import HeldParameters, expected_sync_s

_PROMISING = 24
"""Layouts of a part that are joined with those of others, of a part alone."""
_EXACT = 1e-4
"""How near a bound is found."""
_ENDLESS = 1e6

Shape = tuple[LayoutRow, ...]
Parts = Sequence[tuple[str, ...]]
"""Pools that form pipelines together, of disjoint ones."""


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
        orders = (prod(factorial(len(part)) * self.space.of(part).ways for part in parts) for parts in self.parts)
        return sum(orders) * len(self.problem.schedules)

    def bound_s(self, parts: Parts) -> float:
        """No plan with these pools in common pipelines is faster; infinite without one."""
        return SAFE * self._time(parts, lambda part, t: self.space.of(part).most(t, self.fills))

    def of_all(self, parts: Parts, within_s: float, most: int) -> list[tuple[float, Shape]] | None:
        """Every shape that may be faster, with its bound; None if there are more than so many."""
        batch = self.problem.workload.global_batch
        if not all(self.space.of(part) for part in parts):
            return []
        best, lists = [self.space.of(part).most(within_s, self.fills) for part in parts], []
        for part, own in zip(parts, best, strict=True):
            ways = self.space.of(part).able(max(1.0, batch - sum(best) + own), within_s, self.fills, most)
            if ways is None:
                return None
            lists.append(ways)
        if not all(lists):
            return []
        found: list[tuple[float, Shape]] = []
        for shape in self._enough(lists, batch):
            if len(found) == most:
                return None
            if self._feeds(shape):
                found.append((SAFE * self.solve(shape), shape))
        return found

    def promising(self, parts: Parts) -> Iterator[tuple[float, Shape]]:
        """A few shapes with a guess at their steps: of each part the layouts that get most done by the end of the best
        of them."""
        within_s = self._time(parts, lambda part, t: self.space.of(part).expected(t))
        if within_s == inf:
            return
        most = max(3, int(_PROMISING ** (1 / len(parts))))
        for shape in product(*(self.space.of(part).likeliest(within_s, most) for part in parts)):
            if self._feeds(shape):
                missing = sum(way.at_once * (way.depth - 1) for way in shape)
                rate = sum(way.expected_rate for way in shape)
                yield (self.problem.workload.global_batch + missing) / rate + self._sync_s(shape), shape

    def _sync_s(self, shape: Shape) -> float:
        """As if each pool of a part held as much of the model."""
        topology, work = self.problem.topology, self.problem.workload
        held = [
            HeldParameters(way.pipelines, dict.fromkeys(way.layouts.pools, work.trained // len(way.layouts.pools)))
            for way in shape
        ]
        return expected_sync_s(held, topology, work) / self.space.pairs if len(shape) > 1 else 0.0

    def groupings(self, shape: Shape) -> Iterator[Grouping]:
        """Its orders and schedules, the usual schedule first, and pools with much memory first."""
        names = self.problem.schedules if max(way.depth for way in shape) > 1 else self.problem.schedules[:1]
        for groups in product(*(list(way.layouts.groups(way.row)) for way in shape)):
            for name in names:
                yield Grouping(groups, name)

    def solve(self, shape: Shape) -> float:
        """The least time in which a shape's pipelines get the batch done."""
        batch = self.problem.workload.global_batch
        low = batch / sum(way.rate for way in shape)
        return _least(lambda t: sum(way.sequences(t, self.fills) for way in shape) >= batch, low)

    def _time(self, parts: Parts, done: Callable[[tuple[str, ...], float], float]) -> float:
        """The least in which the parts get the batch done, where each does so much in a time."""
        if not all(self.space.of(part) for part in parts):
            return inf
        batch, rate = self.problem.workload.global_batch, sum(self.space.of(part).fastest for part in parts)
        return _least(lambda t: sum(done(part, t) for part in parts) >= batch, batch / rate)

    def _feeds(self, shape: Shape) -> bool:
        """Whether each pipeline gets a micro-batch."""
        return sum(way.at_once for way in shape) <= self.problem.workload.global_batch

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
