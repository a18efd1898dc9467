"""What the sync takes. Of a finished plan, its gradients in simulated time, bucket by bucket while backwards go on
(`beginning` has the way back of parameters); before there is one, both, by what crosses between pools in all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from typing import NamedTuple

from balancer.cost.sync_traffic import SharedUnits, Use, buckets, shared_state
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.memory.memory import WEIGHT_BYTES
from balancer.memory.sync_memory import GRADIENT_BYTES
from balancer.plan.plan import Place, Plan, StagePlan
from balancer.simulate.copies import CopyLinks
from balancer.simulate.links import SimulatedLinks

At = Callable[[float, Callable[[float], None]], None]
"""Asks to be called at a time."""


class _TimedBucket:
    """Units of one route, whose gradients travel together."""

    def __init__(self, units: list[SharedUnits], stages: Mapping[Place, StagePlan]) -> None:
        self.owner, self.hubs = units[0].owner, units[0].hubs
        self.bytes = GRADIENT_BYTES * sum(one.parameters for one in units)
        self.missing = {place: {use for one in units for use in one.uses[place]} for place in units[0].uses}
        self.copies = Counter(stages[place].pool for place in self.missing)
        self.summed_at: dict[str, float] = defaultdict(float)


class SyncTiming:
    """Prices what `hetero/engine/state/sync.py` does: gradients alone.

    `ready_at` is when an owner has all gradients that others make for it."""

    def __init__(self, plan: Plan, workload: Workload, links: SimulatedLinks, bucket_bytes: int, at: At) -> None:
        self.shared = shared_state(plan, workload)
        self.ready_at: dict[Place, float] = defaultdict(float)
        self._stages, self._links, self._at = dict(plan.stages()), links, at
        self._copies = CopyLinks(plan, links.topology, links.scale)
        self._by_use: dict[Use, list[_TimedBucket]] = defaultdict(list)
        self._at_step: dict[Place, float] = {}
        self._held: dict[Place, list[tuple[_TimedBucket, str]]] = defaultdict(list)
        units = buckets(self.shared, lambda one: one.route, lambda one: one.parameters * GRADIENT_BYTES, bucket_bytes)
        for bucket in (_TimedBucket(found, self._stages) for found in units):
            for use in {use for uses in bucket.missing.values() for use in uses}:
                self._by_use[use].append(bucket)

    def concerns(self, use: Use) -> bool:
        """Whether other copies of what is used there exist."""
        return use in self._by_use

    def made(self, place: Place, use: Use, now: float) -> None:
        """A unit's gradients are complete at a stage."""
        for bucket in self._by_use[use]:
            bucket.missing[place].discard(use)
            if not bucket.missing[place]:
                self._give(bucket, place, now)

    def at_step(self, place: Place, now: float) -> None:
        """A stage has computed everything: from here on it passes on what its pool has summed there."""
        self._at_step[place] = now
        for bucket, pool in self._held.pop(place, ()):
            self._pass_on(bucket, pool)

    def _give(self, bucket: _TimedBucket, place: Place, now: float) -> None:
        """To the pool's hub; from a pool's only copy straight to the owner."""
        pool = self._stages[place].pool
        hub = bucket.hubs[pool]
        arrival = now if place == hub else self._carry(place, hub, bucket, now)
        bucket.summed_at[pool] = max(bucket.summed_at[pool], arrival)
        bucket.copies[pool] -= 1
        if bucket.copies[pool] == 0:
            self._summed(bucket, pool, alone=sum(self._stages[p].pool == pool for p in bucket.missing) == 1)

    def _summed(self, bucket: _TimedBucket, pool: str, alone: bool) -> None:
        hub, when = bucket.hubs[pool], bucket.summed_at[pool]
        if hub == bucket.owner:
            self.ready_at[hub] = max(self.ready_at[hub], when)
        elif alone:
            self._send(bucket, pool, when)
        elif hub in self._at_step:
            self._pass_on(bucket, pool)
        else:
            self._held[hub].append((bucket, pool))

    def _pass_on(self, bucket: _TimedBucket, pool: str) -> None:
        when = max(bucket.summed_at[pool], self._at_step[bucket.hubs[pool]])
        self._at(when, lambda now: self._send(bucket, pool, now))

    def _send(self, bucket: _TimedBucket, pool: str, now: float) -> None:
        arrival = self._carry(bucket.hubs[pool], bucket.owner, bucket, now)
        self.ready_at[bucket.owner] = max(self.ready_at[bucket.owner], arrival)

    def _carry(self, source: Place, target: Place, bucket: _TimedBucket, now: float) -> float:
        here, there = self._stages[source], self._stages[target]
        if here.pool == there.pool and self._copies.concern(here):
            return self._copies.of(here).carry(bucket.bytes, now)
        return self._links.between(here, there).carry(bucket.bytes, now)


class HeldParameters(NamedTuple):
    """Equal pipelines before it is known who owns what: how many, and the parameters of one of them by pool."""

    pipelines: int
    parameters: Mapping[str, int]


def expected_sync_s(groups: Sequence[HeldParameters], topology: Topology, workload: Workload) -> float:
    """Gradients to their owners and parameters back over the busiest link, where owners are spread evenly over
    pipelines, and units over a group's pools as its cut says. Each crosses once between two pools; inside a group
    a unit is in the same pool in all pipelines."""
    pipelines, model = sum(group.pipelines for group in groups), sum(unit.trained for unit in workload.units)
    crossing: dict[tuple[str, str], float] = defaultdict(float)
    for giver, taker in permutations(groups, 2):
        owned_there = taker.pipelines / pipelines / max(1, model)
        for (a, held), (b, owned) in product(giver.parameters.items(), taker.parameters.items()):
            crossing[a, b] += owned_there * held * owned
    return max((_crossing_s(topology, a, b, n) for (a, b), n in crossing.items()), default=0.0)


def _crossing_s(topology: Topology, a: str, b: str, parameters: float) -> float:
    if parameters == 0:
        return 0.0
    link, back = topology.link(a, b), WEIGHT_BYTES[topology.pool(a).precision]
    return 2 * link.latency_s + parameters * (GRADIENT_BYTES + back) / link.bytes_per_s
