"""What a grouping costs: cuts, strategies, periods and shares of its groups, by formula. Cheap enough to price
hundreds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from math import ceil, inf
from typing import TypeVar

from balancer.cost.times import transfer_s
from balancer.plan.plan import PipelinePlan, Plan, Range, StagePlan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import MicroBatchTimes
from balancer.search.cut import CutBand, shortest, spread
from balancer.search.grouping import Group, Grouping
from balancer.search.room import ChipRoom
from balancer.search.shares import uneven_shares
from balancer.search.space import LayoutSpace
from balancer.search.stage_costs import StageCosts, Standing
from balancer.simulate.sync import HeldParameters, expected_sync_s

LOOSER = 1.04, 1.12
"""How much longer than need be the slowest stage may take, so that all together take less."""
_CAP = 2.5
_T = TypeVar("_T")


@dataclass(frozen=True)
class Priced:
    """A group with its cut and strategies: `times` in a plan with one micro-batch of every pipeline on a link, seconds
    from one micro-batch to the next and what a step takes beyond one of these for each, and `parameters` by pool."""

    group: Group
    stages: tuple[StagePlan, ...]
    times: MicroBatchTimes
    period_s: float
    fill_s: float
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Candidate:
    """A plan but for what its completion fills in; `micro_batches` are of each pipeline, `step_s` is a guess."""

    schedule: str
    groups: tuple[Priced, ...]
    micro_batches: tuple[int, ...]
    step_s: float

    @property
    def grouping(self) -> Grouping:
        return Grouping(tuple(priced.group for priced in self.groups), self.schedule)

    @cached_property
    def plan(self) -> Plan:
        pipelines = [priced for priced in self.groups for _ in range(priced.group.pipelines)]
        return Plan(
            schedule=self.schedule,
            pipelines=tuple(
                PipelinePlan(share=n * one.group.micro_batch, micro_batch=one.group.micro_batch, stages=one.stages)
                for n, one in zip(self.micro_batches, pipelines, strict=True)
            ),
        )


class Pricer:
    """Prices groupings of one problem; everything that several share is worked out once."""

    def __init__(self, problem: Problem, space: LayoutSpace) -> None:
        self.problem, self.space, self.room = problem, space, ChipRoom(problem)
        self.topology, self.workload = problem.topology, problem.workload
        self._known: dict[tuple[Group, str, int, int, bool], list[Priced]] = {}

    def candidates(self, grouping: Grouping, within_s: float, cautious: bool = False) -> Iterator[Candidate]:
        """The best cuts of a grouping whose step is expected to take so long, with the best shares."""
        pipelines, groups = grouping.pipelines, grouping.groups
        spent = {group: self._micro_batches(group, within_s) for group in groups}
        priced = [self._group(group, grouping.schedule, pipelines, spent[group], cautious) for group in groups]
        for cut in range(max(map(len, priced)) if all(priced) else 0):
            found = self._shared_out(grouping, [one[min(cut, len(one) - 1)] for one in priced])
            if found:
                yield found

    def _shared_out(self, grouping: Grouping, groups: Sequence[Priced]) -> Candidate | None:
        pipelines = [group for group in groups for _ in range(group.group.pipelines)]
        fill_s, period_s = [p.fill_s for p in pipelines], [p.period_s for p in pipelines]
        sizes = [p.group.micro_batch for p in pipelines]
        counts = uneven_shares(fill_s, period_s, sizes, self.workload.global_batch)
        if counts is None:
            return None
        last = max(fill + n * each for fill, n, each in zip(fill_s, counts, period_s, strict=True))
        held = [HeldParameters(group.group.pipelines, group.parameters) for group in groups]
        sync_s = expected_sync_s(held, self.topology, self.workload) / self.space.pairs
        return Candidate(grouping.schedule, tuple(groups), counts, last + sync_s)

    def _micro_batches(self, group: Group, within_s: float) -> int:
        """About as many of each pipeline."""
        costs = [self.space.cost(pool, tp, group.micro_batch) for pool, tp in group.stages]
        period_s = 1 / sum(1 / float(cost.least_s[-1]) for cost in costs)
        most = self.workload.global_batch // group.micro_batch
        return max(1, min(most, ceil(within_s / period_s)))

    def places(
        self, group: Group, name: str, pipelines: int, micro_batches: int, cautious: bool = False
    ) -> list[Standing]:
        """Pipelines share units to own evenly; to be `cautious`, this group takes all it could."""
        order = schedule(name)
        placed = order.wanted_placement(len(group.stages)) or range(len(group.stages))
        warmups = order.usual_warmups(placed if len(group.stages) > 1 else range(1), micro_batches)
        return [
            Standing(
                in_flight=order.in_flight(micro_batches, warmups[s]),
                limit_bytes=self.room.limit_bytes(group, s) * (0.97 if cautious else 1.0),
                copies=group.pipelines,
                owned=1.0 if cautious else 1 / pipelines,
                micro_batches=micro_batches,
            )
            for s in range(len(group.stages))
        ]

    def _group(self, group: Group, name: str, pipelines: int, micro_batches: int, cautious: bool) -> list[Priced]:
        key = group, name, pipelines, micro_batches, cautious
        if key not in self._known:
            self._known[key] = list(self._priced(*key))
        return self._known[key]

    def _priced(self, group: Group, name: str, pipelines: int, micro_batches: int, cautious: bool) -> Iterator[Priced]:
        costs = [self.space.cost(one.pool, one.tp, group.micro_batch) for one in group.segments]
        standings = self.places(group, name, pipelines, micro_batches, cautious)
        places = _by_segment(group, standings)
        rate = sum(one.stages / cost.least_s[-1] for one, cost in zip(group.segments, costs, strict=True))
        cap_s = _CAP * max(1 / rate, max(cost.least_block_s for cost in costs))
        for most_s in (cap_s, inf):
            fastest = [cost.fastest(own, most_s) for cost, own in zip(costs, places, strict=True)]
            bands = [band for each in fastest for band in each.bands()]
            slowest_s = shortest(bands)
            if slowest_s <= most_s and slowest_s < inf:
                break
        else:
            return

        def cut(ranges: tuple[Range, ...]) -> Priced:
            cuts = zip(fastest, _by_segment(group, ranges), strict=True)
            stages = tuple(stage for each, own in cuts for stage in each.stages(own))
            return self._with_times(group, name, micro_batches, standings, stages)

        best = spread(bands, slowest_s)
        assert best is not None
        first = cut(best)
        yield first
        late_s = [there / micro_batches for there in first.times.there_s] if schedule(name).splits else []
        others = _other_cuts(bands, slowest_s, late_s)
        yield from (cut(ranges) for ranges in dict.fromkeys(others) if ranges and ranges != best)

    def _with_times(
        self, group: Group, name: str, micro_batches: int, places: Sequence[Standing], stages: tuple[StagePlan, ...]
    ) -> Priced:
        costs = [self.space.cost(stage.pool, stage.tp, group.micro_batch) for stage in stages]
        work = [cost.seconds(stage) for cost, stage in zip(costs, stages, strict=True)]
        hops, links = [], [[0.0, 0.0]]
        for here, there in pairwise(stages):
            link = self.topology.link(here.pool, there.pool)
            units = self.workload.at(self.topology.crossing(here.pool, there.pool)).units
            size = units[here.units[0][1] - 1].boundary_bytes * group.micro_batch
            sizes = size * link.activation_ratio, size * link.gradient_ratio
            hops.append(sum(transfer_s(link, one) for one in sizes) / 2)
            if here.pool != there.pool:
                links.append([one / link.bytes_per_s * self._on_a_link(group, here.pool, there.pool) for one in sizes])
        parameters: Counter[str] = Counter()
        for stage in stages:
            parameters[stage.pool] += sum(self._trained[slice(*stage.units[0])])
        activations, gradients = zip(*links, strict=True)
        times = MicroBatchTimes(
            [time.total_s for time in work],
            [time.forward_s for time in work],
            hops,
            (max(activations), max(gradients)),
            [time.weight_s for time in work],
            [time.hidden_s for time in work],
        )
        pace = self._pace_s(name, micro_batches, times, costs, places, stages)
        return Priced(group, stages, times, *pace, parameters)

    @cached_property
    def _trained(self) -> list[int]:
        """Parameters by unit."""
        return [unit.trained for unit in self.workload.units]

    def _pace_s(
        self,
        name: str,
        micro_batches: int,
        times: MicroBatchTimes,
        costs: Sequence[StageCosts],
        places: Sequence[Standing],
        stages: Sequence[StagePlan],
    ) -> tuple[float, float]:
        """Period and fill at warm-ups that hide the hops, if they fit."""
        order = schedule(name)
        period_s = order.expected_period_s(times, micro_batches)
        if order.timed and not order.splits:
            return period_s, times.round_trip_s - period_s
        usual = order.usual_warmups(range(len(stages)), micro_batches)
        depths = [min(n, micro_batches) for n in order.hiding_warmups(range(len(stages)), times, usual)]
        deeper = (
            replace(one, in_flight=order.in_flight(micro_batches, n)) for one, n in zip(places, depths, strict=True)
        )
        if depths != list(usual) and any(
            cost.need_bytes(place, stage) > place.limit_bytes
            for cost, place, stage in zip(costs, deeper, stages, strict=True)
        ):
            return period_s, times.round_trip_s - period_s
        if not order.timed:
            period_s = min(period_s, order.period_s(times, depths))
        return period_s, order.expected_fill_s(times, micro_batches, period_s)

    def _on_a_link(self, group: Group, *pools: str) -> int:
        """Pipelines that cross between the same two hosts."""
        specs = [self.topology.pool(name) for name in pools]
        return -(-group.pipelines // min(-(-spec.count // spec.chips_per_host) for spec in specs))


def _other_cuts(
    bands: Sequence[CutBand], slowest_s: float, late_s: Sequence[float]
) -> Iterator[tuple[Range, ...] | None]:
    """Than the evenest one. Where stages begin late and nothing is idle at the end, later ones get less."""
    if len(bands) == 1:
        return
    if late_s:
        late = [band + each for band, each in zip(bands, late_s, strict=True)]
        yield spread(late, shortest(late))
    for looser in LOOSER:
        yield spread(bands, looser * slowest_s)


def _by_segment(group: Group, each: Sequence[_T]) -> list[Sequence[_T]]:
    """What there is of each stage, by segment."""
    bounds = accumulate((segment.stages for segment in group.segments), initial=0)
    return [each[a:b] for a, b in pairwise(bounds)]
