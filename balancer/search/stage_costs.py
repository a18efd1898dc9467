"""What every range of units costs as a stage: its seconds under the fastest strategies that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.plan.plan import Range, StagePlan
from balancer.problem import Problem
from balancer.search.alike_ranges import alike_ranges
from balancer.search.strategies import Strategy, recomputed
from balancer.search.strategy_costs import StrategyCosts, StrategyPricer, Word, best_strategies, prefix_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SENT, TAKEN = 2.0, 1.5
"""Gradients that lie on a chip while they are summed, for each of its own, and for the largest that others send it."""


@dataclass(frozen=True)
class Standing:
    """Where a stage stands in its pipeline: how many micro-batches it keeps, the bytes that one of its chips has for
    its units, how many copies of it its pool has, which part of its units it owns, and how many micro-batches share
    the time of an update."""

    in_flight: int
    limit_bytes: float
    copies: int = 1
    owned: float = 1.0
    micro_batches: float = np.inf


class _Standings(NamedTuple):
    """Several, a row for each; ranges of units are columns, or one for each row."""

    in_flight: Floats
    limit_bytes: Floats
    copies: Floats
    owned: Floats
    micro_batches: Floats

    @staticmethod
    def of(places: Sequence[Standing]) -> _Standings:
        rows = [(p.in_flight, p.limit_bytes, p.copies, p.owned, p.micro_batches) for p in places]
        return _Standings(*np.array(rows, dtype=float).T[:, :, None])


class _Way(NamedTuple):
    """Of a strategy and a way to recompute: seconds, infinite where it doesn't fit, and how many units are recomputed
    in full and selectively."""

    costs: StrategyCosts
    seconds: Floats
    full: Ints
    selective: Ints


class StageCosts:
    """Of one pool, tp and size of micro-batch, over the places where the model can be cut."""

    def __init__(self, problem: Problem, pool: str, tp: int, micro_batch: int) -> None:
        self.pool, self.tp, self.micro_batch = problem.topology.pool(pool), tp, micro_batch
        pricer, cuts = StrategyPricer(problem, pool, tp, micro_batch), problem.workload.cuts
        self.cuts = np.array(cuts)
        self.strategies = pricer.every()
        self.front = best_strategies(self.strategies)
        self.ranges = alike_ranges(pricer.kinds.of_unit, cuts)

    @cached_property
    def least_s(self) -> Floats:
        """Prefix sums over units: nothing is faster, whatever the strategy."""
        return prefix_sums(np.min([np.diff(one.units["none"].seconds) for one in self.strategies], axis=0))

    @cached_property
    def least_block_s(self) -> float:
        """Of the largest part that no cut divides."""
        return float(np.diff(self.least_s[self.cuts]).max())

    @cached_property
    def least_bytes(self) -> Floats:
        """Of each unit: no strategy needs less, in the pipeline's only copy or one of several."""
        found: Floats = np.min([np.diff(one.held) for one in self.strategies], axis=0)
        return found

    def seconds(self, stage: StagePlan) -> tuple[float, float]:
        """Of a micro-batch in a stage with one range of units: in all, and forwards."""
        parts = list(self._of(stage).parts(stage))
        total = sum(units.seconds[b] - units.seconds[a] for units, a, b in parts)
        return float(total), float(sum(units.forward[b] - units.forward[a] for units, a, b in parts))

    def need_bytes(self, place: Standing, stage: StagePlan) -> float:
        """Of its units on one chip."""
        (begin, end), costs = stage.units[0], self._of(stage)
        parts = list(costs.parts(stage))
        state = costs.held + place.owned * costs.owned
        kept = sum(place.in_flight * (u.kept[b] - u.kept[a]) + u.last[b] - u.last[a] for u, a, b in parts)
        computing = kept + max(units.room for units, _, _ in parts)
        copies = _copies(_Standings.of([place]), costs, np.array([begin]), np.array([end]))
        return float(state[end] - state[begin] + max(computing, float(copies[0, 0])))

    def _of(self, stage: StagePlan) -> StrategyCosts:
        return next(one for one in self.strategies if one.strategy == Strategy.of(stage))

    def fastest(self, places: Sequence[Standing], most_s: float = np.inf) -> FastestStages:
        """Of stages that stand there: of ranges that take no more than `most_s`."""
        begin, end, _ = self.ranges
        [short] = np.nonzero(self.least_s[end] - self.least_s[begin] <= most_s)
        ways = list(_ways(self.front, _Standings.of(places), begin[short], end[short]))
        every = np.stack([way.seconds for way in ways])
        number = every.argmin(axis=0)
        chosen = (np.take_along_axis(np.stack(each), number[None], axis=0)[0]
                  for each in zip(*(way[1:] for way in ways), strict=True))  # fmt: skip
        found = FastestStages(self, [way.costs for way in ways], *(
            np.full((len(places), len(begin) + 1), empty) for empty in (0, np.inf, 0, 0)))  # fmt: skip
        for whole, part in zip(found[2:], (number, *chosen), strict=True):
            whole[:, short] = part
        return found

    def least_need(self, place: Standing) -> Floats:
        """Bytes by last and first cut under the strategies that need least; infinite for no range."""
        begin, end, which = self.ranges
        words: tuple[Word, ...] = ("none", "selective", "full")
        needs = [
            _need(_Standings.of([place]), costs, word, begin, end)[0]
            for costs in self.front
            for word in words
            if word in costs.units
        ]
        found: Floats = np.append(np.min(needs, axis=0), np.inf)[which]
        return found


class FastestStages(NamedTuple):
    """Some stages with the strategies that are fastest there, by stage and by `costs.ranges`, behind which comes no
    range: the `way` among `ways`, seconds, and how many units are recomputed in full and selectively."""

    costs: StageCosts
    ways: Sequence[StrategyCosts]
    way: Ints
    seconds: Floats
    full: Ints
    selective: Ints

    @property
    def matrices(self) -> list[Floats]:
        """Seconds of a micro-batch by last and first cut; infinite where nothing fits."""
        return [each[self.costs.ranges.which] for each in self.seconds]

    def stages(self, cuts: Sequence[Range]) -> list[StagePlan]:
        """Between these two places to cut each."""
        costs, found = self.costs, []
        for row, (first, last) in enumerate(cuts):
            at, units = costs.ranges.which[last, first], (int(costs.cuts[first]), int(costs.cuts[last]))
            again = recomputed(int(self.full[row, at]), int(self.selective[row, at]), units[1] - units[0])
            found.append(self.ways[self.way[row, at]].strategy.stage(costs.pool.name, costs.tp, units, again))
        return found


def _ways(front: Sequence[StrategyCosts], places: _Standings, begin: Ints, end: Ints) -> Iterator[_Way]:
    """Each strategy, in each way to recompute some of the units."""
    for costs in front:
        kept = costs.units["none"]
        update = (costs.update[end] - costs.update[begin]) * places.owned / places.micro_batches
        base = kept.seconds[end] - kept.seconds[begin] + update
        over = _need(places, costs, "none", begin, end) - places.limit_bytes
        none = np.zeros(base.shape, dtype=np.int64)
        yield _Way(costs, np.where(over <= 0, base, np.inf), none, none)
        if "full" in costs.units and (over > 0).any():
            for low, high in combinations(costs.units, 2):
                yield _mixed(places, costs, low, high, begin, end, update)


def _mixed(
    places: _Standings, costs: StrategyCosts, low: Word, high: Word, begin: Ints, end: Ints, update: Floats
) -> _Way:
    """As few units as fit are recomputed the `high` way, the first ones, and the others the `low` way."""
    below, above = costs.units[low], costs.units[high]
    saved = below.kept - above.kept
    room = max(below.room, above.room) - below.room
    over = np.maximum(_need(places, costs, low, begin, end) + room - places.limit_bytes, 0.0)
    count = np.searchsorted(saved, saved[begin] + over / places.in_flight, side="left")
    summed = _state(places, costs, begin, end) + _copies(places, costs, begin, end) <= places.limit_bytes
    fits, upto = (count <= end) & summed, np.minimum(np.maximum(count, begin), end)
    seconds = above.seconds[upto] - above.seconds[begin] + below.seconds[end] - below.seconds[upto] + update
    several = upto - begin
    none = np.zeros_like(several)
    full, selective = (several, end - upto if low == "selective" else none) if high == "full" else (none, several)
    return _Way(costs, np.where(fits, seconds, np.inf), full, selective)


def _need(places: _Standings, costs: StrategyCosts, word: Word, begin: Ints, end: Ints) -> Floats:
    units = costs.units[word]
    kept, last = units.kept[end] - units.kept[begin], units.last[end] - units.last[begin]
    computing = places.in_flight * kept + last + units.room
    found: Floats = _state(places, costs, begin, end) + np.maximum(computing, _copies(places, costs, begin, end))
    return found


def _state(places: _Standings, costs: StrategyCosts, begin: Ints, end: Ints) -> Floats:
    found: Floats = costs.held[end] - costs.held[begin] + places.owned * (costs.owned[end] - costs.owned[begin])
    return found


def _copies(places: _Standings, costs: StrategyCosts, begin: Ints, end: Ints) -> Floats:
    """What is on its way between copies of the stage's units: all is sent, as much again is kept, and who sums a unit
    gets it from all others."""
    own, largest = costs.gradients[end] - costs.gradients[begin], np.diff(costs.gradients).max()
    found: Floats = (SENT * own + TAKEN * (places.copies - 1) * largest) * (places.copies > 1)
    return found


def least_part(costs: Sequence[StageCosts]) -> float:
    """Of the model's work, where each unit is on the pool for which it is the smallest part of it: less than all, since
    pools differ in what they are fast at."""
    parts = [np.diff(cost.least_s) / cost.least_s[-1] for cost in costs]
    return float(np.min(parts, axis=0).sum())
