"""What a shape costs: cuts, periods and warm-ups of its groups, by formula. Cheap enough to price thousands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, permutations, product
from math import ceil

from balancer.cost import Times, transfer_s
from balancer.cut import Range, StageCost, cut
from balancer.memory import MESSAGES, SLACK, WEIGHT_BYTES, optimizer_bytes, unit_activation_bytes
from balancer.schedule.schedule import Pace, Schedule
from balancer.shape import Group
from balancer.staging import GRADIENT_BYTES
from balancer.topology import Topology
from balancer.workload import Workload


@dataclass(frozen=True)
class Priced:
    """A group with its cut: `pace` in a plan with one micro-batch of every pipeline on a wire, seconds from micro-batch
    to micro-batch at the schedule's usual warm-ups, and `parameters` by pool."""

    group: Group
    ranges: tuple[Range, ...]
    pace: Pace
    period_s: float
    parameters: Mapping[str, int]

    @cached_property
    def fill_s(self) -> float:
        """What a step takes beyond a period for each micro-batch."""
        return self.pace.round_trip_s - self.period_s


class Pricer:
    """Prices groups for one workload; everything that several groups share is worked out once."""

    def __init__(
        self, topology: Topology, workload: Workload, times: Times, micro_batch: int, schedule: Schedule
    ) -> None:
        self.topology, self.workload, self.times = topology, workload, times
        self.micro_batch = micro_batch
        self.schedule = schedule
        self._seconds: dict[tuple[str, int], tuple[float, ...]] = {}
        self._forward: dict[tuple[str, int], tuple[float, ...]] = {}
        self._bytes: dict[tuple[str, int, int, bool, float], tuple[float, ...]] = {}
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

    def sync_s(self, groups: Sequence[Priced]) -> float:
        """Gradients to their owners and parameters back over the busiest link, where owners are spread evenly over
        pipelines, and units over a group's pools as its cut says. Each crosses once between two pools; inside a group
        a unit is in the same pool in all pipelines."""
        pipelines = sum(priced.group.pipelines for priced in groups)
        crossing: dict[tuple[str, str], float] = defaultdict(float)
        for giver, taker in permutations(groups, 2):
            owned_there = taker.group.pipelines / pipelines / max(1, self._parameters)
            for (a, held), (b, owned) in product(giver.parameters.items(), taker.parameters.items()):
                crossing[a, b] += owned_there * held * owned
        return max((self._crossing_s(a, b, n) for (a, b), n in crossing.items()), default=0.0)

    def _crossing_s(self, a: str, b: str, parameters: float) -> float:
        if parameters == 0:
            return 0.0
        link, back = self.topology.link(a, b), WEIGHT_BYTES[self.topology.pool(a).precision]
        return 2 * link.latency_s + parameters * (GRADIENT_BYTES + back) / link.bytes_per_s

    def costs(self, group: Group, pipelines: int, cautious: bool = False) -> list[StageCost]:
        """Pipelines share units to own and micro-batches evenly; to be `cautious`, this group takes all it could."""
        stages, total = group.stages, self.workload.global_batch // self.micro_batch
        most = total - pipelines + 1 if cautious else ceil(total / pipelines)
        owned = 1.0 if cautious else 1 / pipelines
        warmups = self.schedule.usual_warmups(range(len(stages)), len(stages))
        costs = []
        for s, (pool, tp) in enumerate(stages):
            in_flight = self.schedule.in_flight(most, warmups[s])
            needed = self.bytes(pool, tp, in_flight, len(stages) > 1, owned)
            chip = self.topology.pool(pool)
            room = (chip.memory_bytes - 2 * chip.chip.communicator_bytes) / (1 + SLACK)
            room = round(room) - self._message_bytes[pool] * ((s > 0) + (s < len(stages) - 1))
            costs.append(StageCost(self.seconds(pool, tp), needed, room))
        return costs

    @cached_property
    def _message_bytes(self) -> dict[str, int]:
        """By pool, per boundary of a stage, wherever it may be cut."""
        units = {pool.name: self.workload.at(pool.precision).units for pool in self.topology.pools}
        return {
            pool: MESSAGES * self.micro_batch * max(unit.boundary_bytes for unit in found)
            for pool, found in units.items()
        }

    def seconds(self, pool: str, tp: int) -> tuple[float, ...]:
        """Prefix sums over units, per micro-batch."""
        if (pool, tp) not in self._seconds:
            each = [self.times.lookup(pool, tp, unit.kind).total_s * self.micro_batch for unit in self.workload.units]
            self._seconds[pool, tp] = tuple(accumulate(each, initial=0.0))
        return self._seconds[pool, tp]

    def _forward_s(self, stage: tuple[str, int], units: Range) -> float:
        """A stage's forward of a micro-batch."""
        if stage not in self._forward:
            each = [self.times.lookup(*stage, unit.kind).forward_s * self.micro_batch for unit in self.workload.units]
            self._forward[stage] = tuple(accumulate(each, initial=0.0))
        return self._forward[stage][units[1]] - self._forward[stage][units[0]]

    def bytes(self, pool: str, tp: int, in_flight: int, apart: bool, owned: float) -> tuple[float, ...]:
        """Prefix sums over units of the bytes on one chip. A tied weight counts twice where its two units may be
        `apart`. `balancer.memory` has the exact figures of a finished plan."""
        key = pool, tp, in_flight, apart, owned
        if key not in self._bytes:
            precision = self.topology.pool(pool).precision
            units = self.workload.at(precision).units
            again = {later: first for first, later in self.workload.tied if apart}
            fixed, owner = WEIGHT_BYTES[precision] + GRADIENT_BYTES, owned * optimizer_bytes(precision)
            each = []
            for u, unit in enumerate(units):
                held = unit.parameters + (units[again[u]].parameters if u in again else 0)
                kept = in_flight * self.micro_batch * unit_activation_bytes(unit, tp)
                kept += self.micro_batch * unit.backward_bytes / tp if u == len(units) - 1 else 0.0
                each.append((held * fixed + unit.parameters * owner) / tp + kept)
            self._bytes[key] = tuple(accumulate(each, initial=0.0))
        return self._bytes[key]

    @cached_property
    def _parameters(self) -> int:
        return sum(unit.parameters for unit in self.workload.units)

    @cached_property
    def _no_bytes(self) -> tuple[float, ...]:
        return (0.0,) * (len(self.workload.units) + 1)

    def _priced(self, group: Group, costs: Sequence[StageCost], with_links: bool) -> Priced | None:
        ranges = cut(costs, self.workload.cuts)
        if ranges is None:
            return None
        stage_s = [cost.between(units) for cost, units in zip(costs, ranges, strict=True)]
        forward_s = [self._forward_s(stage, units) for stage, units in zip(group.stages, ranges, strict=True)]
        hops, wires = [], [[0.0, 0.0]]
        for (_, end), here, there in zip(ranges, group.stages, group.stages[1:], strict=False):
            link = self.topology.link(here[0], there[0])
            units = self.workload.at(self.topology.crossing(here[0], there[0])).units
            size = units[end - 1].boundary_bytes * self.micro_batch
            sizes = size * link.activation_ratio, size * link.gradient_ratio
            hops.append(sum(transfer_s(link, one) for one in sizes) / 2 if with_links else 0.0)
            if here[0] != there[0]:
                wires.append([one / link.bytes_per_s * group.pipelines for one in sizes])
        parameters: Counter[str] = Counter()
        for (pool, _), (a, b) in zip(group.stages, ranges, strict=True):
            parameters[pool] += sum(unit.parameters for unit in self.workload.units[a:b])
        activations, gradients = zip(*wires, strict=True)
        pace = Pace(stage_s, forward_s, hops, (max(activations), max(gradients)))
        return Priced(group, ranges, pace, self.schedule.expected_period_s(pace), parameters)


def fill_by_memory(costs: Sequence[StageCost], places: Sequence[int]) -> tuple[int, float] | None:
    """The fullest stage, and how full (1: at its limit), where memory alone decides the cut; None without a cut."""
    full = [StageCost(tuple(b / cost.limit_bytes for b in cost.bytes), (0.0,) * len(cost.bytes)) for cost in costs]
    ranges = cut(full, places)
    if ranges is None:
        return None
    filled = [cost.between(units) for cost, units in zip(full, ranges, strict=True)]
    return filled.index(max(filled)), max(filled)
