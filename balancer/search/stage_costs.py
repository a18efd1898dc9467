"""What every range of units costs as a stage: its seconds under the fastest strategies that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.times import UnitTime
from balancer.plan.plan import Range, StagePlan
from balancer.plan.recompute import Recompute, RecomputedUnits
from balancer.problem import Problem
from balancer.search.alike_ranges import alike_ranges
from balancer.search.strategies import Strategy, recomputed
from balancer.search.strategy_costs import RecomputeWord, StrategyCosts, StrategyPricer, best_strategies, prefix_sums

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
    """Of a strategy and a way to recompute: seconds, infinite where it doesn't fit. Units before `upto` are recomputed
    the `high` way, those from there on the `low` way; without it, none are."""

    costs: StrategyCosts
    seconds: Floats
    low: RecomputeWord = "none"
    high: RecomputeWord = "none"
    upto: Ints | None = None

    def recomputed(self, row: int, number: int, begin: int, end: int) -> Recompute | RecomputedUnits:
        """Of a stage's row and a range's number, which is that of these units."""
        upto = begin if self.upto is None else int(self.upto[row, number])
        counts = {self.low: end - upto, self.high: upto - begin} if self.upto is not None else {}
        return recomputed(counts.get("full", 0), counts.get("selective", 0), end - begin)


class StageCosts:
    """Of one pool, tp and size of micro-batch, over the places where the model can be cut."""

    def __init__(self, problem: Problem, pool: str, tp: int, micro_batch: int) -> None:
        self.pool, self.tp, self.micro_batch = problem.topology.pool(pool), tp, micro_batch
        pricer, cuts = StrategyPricer(problem, pool, tp, micro_batch), problem.workload.cuts
        self.cuts = np.array(cuts)
        self._update_share = micro_batch / problem.workload.global_batch
        self.strategies = pricer.every()
        self.front = best_strategies(self.strategies)
        self.ranges = alike_ranges(pricer.kinds.of_unit, cuts)

    @cached_property
    def least_s(self) -> Floats:
        """Prefix sums over units: nothing is faster, whatever the strategy."""
        return prefix_sums(self.least_unit_s)

    @cached_property
    def least_unit_s(self) -> Floats:
        """Of each unit."""
        return self._of_units(np.min([one.work["none"].seconds for one in self.strategies], axis=0))

    @cached_property
    def least_blocks_s(self) -> Floats:
        """Of each part that no cut divides."""
        found: Floats = np.diff(self.least_s[self.cuts])
        return found

    @cached_property
    def least_block_s(self) -> float:
        """Of the largest one."""
        return float(self.least_blocks_s.max())

    @cached_property
    def least_bytes(self) -> Floats:
        """Of each unit: no strategy needs less, in the pipeline's only copy or one of several."""
        return self._of_units(np.min([one.state.held for one in self.strategies], axis=0))

    def _of_units(self, by_kind: Floats) -> Floats:
        found: Floats = by_kind[self.strategies[0].kinds]
        return found

    def seconds(self, stage: StagePlan) -> UnitTime:
        """Of a micro-batch in a stage with one range of units; its `collectives_s` are not told."""
        parts = list(self._of(stage).parts(stage))
        total = float(sum(units.seconds[b] - units.seconds[a] for units, a, b in parts))
        actions = [units.actions[:, b] - units.actions[:, a] for units, a, b in parts]
        forward, weights, hidden = map(float, np.sum(actions, axis=0))
        return UnitTime(forward, total - forward, weights, hidden)

    def need_bytes(self, place: Standing, stage: StagePlan) -> float:
        """Of its units on one chip."""
        costs = self._of(stage)
        alone = _Stages(_Standings.of([place]), costs, *np.array([stage.units[0]]).T)
        parts = list(costs.parts(stage))
        kept = sum(place.in_flight * (u.kept[b] - u.kept[a]) + u.last[b] - u.last[a] for u, a, b in parts)
        computing = kept + max(units.room for units, _, _ in parts)
        return float(alone.state[0, 0] + max(computing, alone.copies[0, 0]))

    def _of(self, stage: StagePlan) -> StrategyCosts:
        return self._by_strategy[Strategy.of(stage)]

    @cached_property
    def _by_strategy(self) -> dict[Strategy, StrategyCosts]:
        return {one.strategy: one for one in self.strategies}

    @cached_property
    def models(self) -> Floats:
        """Of the whole model, by strategy that may be best and way to recompute: seconds with a micro-batch's share of
        an update, bytes that are held, of gradients, of an owner, that a micro-batch keeps, and of the largest unit's
        gradients."""
        rows = [
            [(units.seconds[-1] + self._update_share * one.update[-1], one.held[-1], one.gradients[-1], one.owned[-1],
              units.kept[-1], one.state.gradients.max()) for units in one.units.values()]
            for one in self.front
        ]  # fmt: skip
        return np.array(rows)

    def fastest(self, places: Sequence[Standing], most_s: float = np.inf) -> FastestStages:
        """Of stages that stand there: of ranges that take no more than `most_s`."""
        begin, end = self.ranges.begin, self.ranges.end
        [short] = np.nonzero(self.least_s[end] - self.least_s[begin] <= most_s)
        ways = list(_ways(self.front, _Standings.of(places), begin[short], end[short]))
        every = np.array([way.seconds for way in ways])
        seconds = np.full((len(places), len(begin) + 1), np.inf)
        seconds[:, short] = every.min(axis=0)
        return FastestStages(self, short, ways, every.argmin(axis=0), seconds)

    def least_need(self, place: Standing) -> Floats:
        """Bytes under the strategies that need least, as a band for `balancer.search.cut`."""
        begin, end = self.ranges.begin, self.ranges.end
        words: tuple[RecomputeWord, ...] = ("none", "selective", "full")
        every = [_Stages(_Standings.of([place]), costs, begin, end) for costs in self.front]
        needs = [one.need(word)[0] for one in every for word in words if word in one.costs.units]
        return self.ranges.band(np.append(np.min(needs, axis=0), np.inf), len(self.cuts) - 1)


class FastestStages(NamedTuple):
    """Some stages with the strategies that are fastest there: by stage and by the `short` ones of `costs.ranges`, the
    `way` among `ways`; and seconds, by all ranges, behind which comes no range."""

    costs: StageCosts
    short: Ints
    ways: Sequence[_Way]
    way: Ints
    seconds: Floats

    def bands(self) -> list[Floats]:
        """Seconds of a micro-batch, for `balancer.search.cut`; infinite where nothing fits."""
        ranges = self.costs.ranges
        longest = ranges.longest[np.isfinite(self.seconds[:, :-1]).any(axis=0)].max(initial=1)
        return [ranges.band(each, int(longest)) for each in self.seconds]

    def stages(self, cuts: Sequence[Range]) -> list[StagePlan]:
        """Between these two places to cut each."""
        costs, found = self.costs, []
        for row, (first, last) in enumerate(cuts):
            at, units = costs.ranges.which(first, last), (int(costs.cuts[first]), int(costs.cuts[last]))
            number = int(np.searchsorted(self.short, at))
            way = self.ways[self.way[row, number]]
            again = way.recomputed(row, number, int(costs.ranges.begin[at]), int(costs.ranges.end[at]))
            found.append(way.costs.strategy.stage(costs.pool.name, costs.tp, units, again))
        return found


def _ways(front: Sequence[StrategyCosts], places: _Standings, begin: Ints, end: Ints) -> Iterator[_Way]:
    """Each strategy, in each way to recompute some of the units."""
    for costs in front:
        stages = _Stages(places, costs, begin, end)
        yield stages.plain()
        if "full" in costs.units and (stages.over("none") > 0).any():
            yield from (stages.mixed(low, high) for low, high in combinations(costs.units, 2))


class _Stages:
    """Under one strategy, by standing and range of units: bytes of `state`, and of `copies` on their way to others, as
    all is sent, as much again is kept, and who sums a unit gets it from all of them."""

    def __init__(self, places: _Standings, costs: StrategyCosts, begin: Ints, end: Ints) -> None:
        self.places, self.costs, self.begin, self.end = places, costs, begin, end
        self.state = self._of(costs.held) + places.owned * self._of(costs.owned)
        taken = TAKEN * (places.copies - 1) * costs.state.gradients.max()
        self.copies = (SENT * self._of(costs.gradients) + taken) * (places.copies > 1)
        self.update_s = self._of(costs.update) * places.owned / places.micro_batches
        self._over: dict[RecomputeWord, Floats] = {}

    def _of(self, sums: Floats) -> Floats:
        found: Floats = sums[self.end] - sums[self.begin]
        return found

    def need(self, word: RecomputeWord) -> Floats:
        """Bytes where all units are recomputed that way."""
        units = self.costs.units[word]
        computing = self.places.in_flight * self._of(units.kept) + self._of(units.last) + units.room
        found: Floats = self.state + np.maximum(computing, self.copies)
        return found

    def over(self, word: RecomputeWord) -> Floats:
        """How much more than there is."""
        if word not in self._over:
            self._over[word] = self.need(word) - self.places.limit_bytes
        return self._over[word]

    def plain(self) -> _Way:
        seconds = self._of(self.costs.units["none"].seconds) + self.update_s
        return _Way(self.costs, np.where(self.over("none") <= 0, seconds, np.inf))

    def mixed(self, low: RecomputeWord, high: RecomputeWord) -> _Way:
        """As few units as fit are recomputed the `high` way, the first ones, and the others the `low` way."""
        below, above, begin, end = self.costs.units[low], self.costs.units[high], self.begin, self.end
        saved, over = below.kept - above.kept, self.over(low) + max(0.0, above.room - below.room)
        count = np.searchsorted(saved, saved[begin] + np.maximum(over, 0.0) / self.places.in_flight, side="left")
        fits, upto = count <= end, np.minimum(np.maximum(count, begin), end)
        fits &= self.state + self.copies <= self.places.limit_bytes
        seconds = above.seconds[upto] - above.seconds[begin] + below.seconds[end] - below.seconds[upto] + self.update_s
        return _Way(self.costs, np.where(fits, seconds, np.inf), low, high, upto)


def least_part(costs: Sequence[StageCosts]) -> float:
    """Of the model's work, where each unit is on the pool for which it is the smallest part of it: less than all, since
    pools differ in what they are fast at."""
    parts = [cost.least_unit_s / cost.least_s[-1] for cost in costs]
    return float(np.min(parts, axis=0).sum())
