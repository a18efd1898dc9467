"""What a grouping costs: cuts, periods and warm-ups of its groups, by formula. Cheap enough to price thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import ceil

from balancer.cost.times import transfer_s
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import MicroBatchTimes
from balancer.search.cut import Range, StageCost, cut
from balancer.search.grouping import Group
from balancer.search.unit_memory import UnitMemory


@dataclass(frozen=True)
class Priced:
    """A group with its cut: `times` in a plan with one micro-batch of every pipeline on a link, seconds from one
    micro-batch to the next at the schedule's usual warm-ups, and `parameters` by pool."""

    group: Group
    ranges: tuple[Range, ...]
    times: MicroBatchTimes
    period_s: float
    parameters: Mapping[str, int]

    @cached_property
    def fill_s(self) -> float:
        """What a step takes beyond a period for each micro-batch."""
        return self.times.round_trip_s - self.period_s


class Pricer:
    """Prices groups for one problem; everything that several groups share is worked out once."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.memory = problem, UnitMemory(problem)
        self.topology, self.workload, self.times = problem.topology, problem.workload, problem.times
        self.micro_batch, self.schedule = problem.micro_batch, schedule(problem.options.schedule)
        self._seconds: dict[tuple[str, int], tuple[float, ...]] = {}
        self._forward: dict[tuple[str, int], tuple[float, ...]] = {}
        self._rough: dict[Group, Priced | None] = {}
        self._exact: dict[tuple[Group, int, bool], Priced | None] = {}

    def rough(self, group: Group) -> Priced | None:
        """The price of a group in whatever order of its pools, memory and hops aside. None if it has too few units."""
        usual = Group(tuple(sorted(group.segments, key=lambda segment: segment.pool)), group.pipelines)
        if usual not in self._rough:
            costs = [StageCost(self.seconds(*stage), self._no_bytes) for stage in usual.stages]
            self._rough[usual] = self._priced(usual, costs, with_links=False)
        return self._rough[usual]

    def exact(self, group: Group, pipelines: int, cautious: bool = False) -> Priced | None:
        """With memory and hops, in a plan of so many pipelines."""
        key = group, pipelines, cautious
        if key not in self._exact:
            costs = self.costs(group, pipelines, cautious)
            self._exact[key] = self._priced(group, costs, with_links=True)
        return self._exact[key]

    def costs(self, group: Group, pipelines: int, cautious: bool = False) -> list[StageCost]:
        """Pipelines share units to own and micro-batches evenly; to be `cautious`, this group takes all it could."""
        stages, total = group.stages, self.problem.micro_batches
        most = total - pipelines + 1 if cautious else ceil(total / pipelines)
        owned = 1.0 if cautious else 1 / pipelines
        warmups = self.schedule.usual_warmups(range(len(stages)), most)
        costs = []
        for s, (pool, tp) in enumerate(stages):
            in_flight = self.schedule.in_flight(most, warmups[s])
            needed = self.memory.sums(pool, tp, in_flight, len(stages) > 1, owned)
            costs.append(StageCost(self.seconds(pool, tp), needed, self.memory.limit_bytes(group, s)))
        return costs

    def seconds(self, pool: str, tp: int) -> tuple[float, ...]:
        """Prefix sums over units, per micro-batch."""
        if (pool, tp) not in self._seconds:
            size, units = self.micro_batch, self.workload.units
            each = [self.times.lookup(pool, tp, unit.kind, size).total_s * size for unit in units]
            self._seconds[pool, tp] = tuple(accumulate(each, initial=0.0))
        return self._seconds[pool, tp]

    def _forward_s(self, stage: tuple[str, int], units: Range) -> float:
        """A stage's forward of a micro-batch."""
        if stage not in self._forward:
            size, work = self.micro_batch, self.workload.units
            each = [self.times.lookup(*stage, unit.kind, size).forward_s * size for unit in work]
            self._forward[stage] = tuple(accumulate(each, initial=0.0))
        return self._forward[stage][units[1]] - self._forward[stage][units[0]]

    @cached_property
    def _no_bytes(self) -> tuple[float, ...]:
        return (0.0,) * (len(self.workload.units) + 1)

    def _priced(self, group: Group, costs: Sequence[StageCost], with_links: bool) -> Priced | None:
        ranges = cut(costs, self.workload.cuts)
        if ranges is None:
            return None
        stage_s = [cost.between(units) for cost, units in zip(costs, ranges, strict=True)]
        forward_s = [self._forward_s(stage, units) for stage, units in zip(group.stages, ranges, strict=True)]
        hops, links = [], [[0.0, 0.0]]
        for (_, end), here, there in zip(ranges, group.stages, group.stages[1:], strict=False):
            link = self.topology.link(here[0], there[0])
            units = self.workload.at(self.topology.crossing(here[0], there[0])).units
            size = units[end - 1].boundary_bytes * self.micro_batch
            sizes = size * link.activation_ratio, size * link.gradient_ratio
            hops.append(sum(transfer_s(link, one) for one in sizes) / 2 if with_links else 0.0)
            if here[0] != there[0]:
                links.append([one / link.bytes_per_s * group.pipelines for one in sizes])
        parameters: Counter[str] = Counter()
        for (pool, _), (a, b) in zip(group.stages, ranges, strict=True):
            parameters[pool] += sum(unit.trained for unit in self.workload.units[a:b])
        activations, gradients = zip(*links, strict=True)
        times = MicroBatchTimes(stage_s, forward_s, hops, (max(activations), max(gradients)))
        each = max(1, self.problem.micro_batches // group.pipelines)
        return Priced(group, ranges, times, self.schedule.expected_period_s(times, each), parameters)


def fill_by_memory(costs: Sequence[StageCost], places: Sequence[int]) -> list[float] | None:
    """The units' bytes of each stage, where memory alone decides the cut; None without a cut."""
    limits = [max(1.0, cost.limit_bytes) for cost in costs]
    full = [
        StageCost(tuple(b / limit for b in cost.bytes), (0.0,) * len(cost.bytes))
        for cost, limit in zip(costs, limits, strict=True)
    ]
    ranges = cut(full, places)
    if ranges is None:
        return None
    return [cost.bytes[end] - cost.bytes[begin] for cost, (begin, end) in zip(costs, ranges, strict=True)]
