"""What the sync takes. Of a finished plan, its gradients in simulated time, bucket by bucket while backwards go on
(`beginning` has the way back of parameters); before there is one, both, by what crosses between pools in all."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import permutations, product
from typing import NamedTuple

from balancer.cost.sync_traffic import SharedUnits, Use, buckets, rounds_of
from balancer.cost.topology import Topology
from balancer.cost.workload import GRADIENT_BYTES, Workload
from balancer.memory.memory import WEIGHT_BYTES
from balancer.plan.plan import Place, StagePlan
from balancer.schedule.action import Action
from balancer.simulate.agenda import Agenda
from balancer.simulate.computation import made_at
from balancer.simulate.copies import CopyLinks
from balancer.simulate.links import LinkDirection, SimulatedLinks
from balancer.simulate.scenario import Scenario

_Told = Callable[[float], None]
"""Hears when a message arrives."""


class Overtaken(Exception):
    """A message of the sync comes before one of an activation or a gradient that was carried without it."""


class _Message(NamedTuple):
    """That waits for a link, and who hears of it."""

    bytes: float
    done: _Told


class _TimedBucket:
    """Units of one route, whose gradients travel together."""

    def __init__(
        self, number: int, units: list[SharedUnits], stages: Mapping[Place, StagePlan], gradient_bytes: int
    ) -> None:
        self.number, self.owner, self.hubs = number, units[0].owner, units[0].hubs
        self.bytes = gradient_bytes * sum(one.parameters for one in units)
        self.missing = {place: {use for one in units for use in one.uses[place]} for place in units[0].uses}
        self.copies = Counter(stages[place].pool for place in self.missing)
        self.alone = {pool for pool, copies in self.copies.items() if copies == 1}
        self.summed_at: dict[str, float] = defaultdict(float)


class SyncTiming:
    """Prices what `hetero/engine/state/sync.py` does: gradients alone. Of copies that are alike one is enough, if it is
    neither owner nor hub. Where it may be `overtaken`, each chip's own part of a message is one.

    `ready_at` is when an owner has all gradients that others make for it."""

    def __init__(
        self,
        scenario: Scenario,
        shared: Iterable[SharedUnits],
        links: SimulatedLinks,
        agenda: Agenda,
        overtaken: bool = False,
    ) -> None:
        self.ready_at: dict[Place, float] = defaultdict(float)
        self._scenario, self._links, self._agenda, self._overtaken = scenario, links, agenda, overtaken
        self._stages, self._copies = dict(scenario.plan.stages()), CopyLinks(scenario)
        self._by_use: dict[Use, list[_TimedBucket]] = defaultdict(list)
        self._computed: dict[Place, float] = {}
        self._held: dict[Place, list[tuple[_TimedBucket, str]]] = defaultdict(list)
        self._waiting: dict[LinkDirection, deque[_Message]] = defaultdict(deque)
        found = buckets(
            shared, lambda one: one.route, lambda one: one.parameters * GRADIENT_BYTES, scenario.topology.bucket_bytes
        )
        each = scenario.workload.sent_gradient_bytes
        made = [_TimedBucket(number, units, self._stages, each) for number, units in enumerate(found)]
        self._rounds = self._together(made)
        for bucket in made:
            for use in {use for uses in bucket.missing.values() for use in uses}:
                self._by_use[use].append(bucket)

    def last_backward(self, place: Place, action: Action, end: float) -> None:
        """Each unit's gradients are handed over once its part of the backward is done: the last unit's first."""
        for unit, when in made_at(self._scenario, place, action, end):
            use = place[0], action.chunk, unit
            if use in self._by_use:
                self._agenda.at(when, (0, *place), partial(self._made, place, use))

    def computed(self, place: Place, end: float) -> None:
        """From here on a stage passes on what its pool has summed there."""
        self._agenda.at(end, (0, *place), partial(self._at_step, place))

    def _made(self, place: Place, use: Use, now: float) -> None:
        for bucket in self._by_use[use]:
            bucket.missing[place].discard(use)
            together = self._rounds[bucket.number, self._stages[place].pool]
            if not any(one.missing.get(place) for one in together):
                for one in together:
                    if place in one.missing:
                        self._give(one, place, now)

    def _together(self, made: Sequence[_TimedBucket]) -> dict[tuple[int, str], list[_TimedBucket]]:
        """By bucket and pool, what goes in one round: each place gives its own when all of it is made."""
        found: dict[tuple[int, str], list[_TimedBucket]] = {}
        for pool in sorted({stage.pool for stage in self._stages.values()}):
            held = {one.number: {p for p in one.missing if self._stages[p].pool == pool} for one in made}
            hubs = {one.number: one.hubs[pool] for one in made if pool in one.hubs}
            there = {number: places for number, places in held.items() if places}
            bytes_, most = (lambda number: made[number].bytes), self._scenario.topology.bucket_bytes
            for numbers in rounds_of(there, hubs, bytes_, most):
                found |= {(number, pool): [made[n] for n in numbers] for number in numbers}
        return found

    def _at_step(self, place: Place, now: float) -> None:
        self._computed[place] = now
        for bucket, pool in self._held.pop(place, ()):
            self._pass_on(bucket, pool)

    def _give(self, bucket: _TimedBucket, place: Place, now: float) -> None:
        """To the pool's hub; from a pool's only copy straight to the owner."""
        pool = self._stages[place].pool
        hub = bucket.hubs[pool]
        if place == hub:
            self._given(bucket, pool, now)
        else:
            self._carry(place, hub, bucket, now, partial(self._given, bucket, pool))

    def _given(self, bucket: _TimedBucket, pool: str, arrival: float) -> None:
        bucket.summed_at[pool] = max(bucket.summed_at[pool], arrival)
        bucket.copies[pool] -= 1
        if bucket.copies[pool] == 0:
            self._summed(bucket, pool)

    def _summed(self, bucket: _TimedBucket, pool: str) -> None:
        hub, when = bucket.hubs[pool], bucket.summed_at[pool]
        if hub == bucket.owner:
            self.ready_at[hub] = max(self.ready_at[hub], when)
        elif pool in bucket.alone:
            self._send(bucket, pool, when)
        elif hub in self._computed:
            self._pass_on(bucket, pool)
        else:
            self._held[hub].append((bucket, pool))

    def _pass_on(self, bucket: _TimedBucket, pool: str) -> None:
        hub = bucket.hubs[pool]
        when = max(bucket.summed_at[pool], self._computed[hub])
        self._agenda.at(when, (0, *hub, bucket.number), partial(self._send, bucket, pool))

    def _send(self, bucket: _TimedBucket, pool: str, now: float) -> None:
        self._carry(bucket.hubs[pool], bucket.owner, bucket, now, partial(self._ready, bucket.owner))

    def _ready(self, owner: Place, arrival: float) -> None:
        self.ready_at[owner] = max(self.ready_at[owner], arrival)

    def _carry(self, source: Place, target: Place, bucket: _TimedBucket, now: float, done: _Told) -> None:
        here, there = self._stages[source], self._stages[target]
        if self._copies.join(here, there):
            done(self._copies.of(here).carry(bucket.bytes, now))
            return
        direction = self._links.between(here, there)
        if now <= direction.resumed:
            raise Overtaken
        waiting, chips = self._waiting[direction], max(here.tp, there.tp) if self._overtaken else 1
        is_idle = not waiting
        waiting.extend([_Message(bucket.bytes / chips, _nobody)] * (chips - 1))
        waiting.append(_Message(bucket.bytes / chips, done))
        if is_idle:
            self._serve(direction, now)

    def _serve(self, direction: LinkDirection, now: float) -> None:
        """What stages have for each other overtakes gradients that wait for a link."""
        waiting = self._waiting[direction]
        if direction.free_at <= now:
            bytes_, done = waiting[0]
            done(direction.carry(bytes_, now))
            waiting.popleft()
        if waiting:
            self._agenda.at(direction.free_at, (2,), partial(self._serve, direction))


def _nobody(arrival: float) -> None: ...


class HeldParameters(NamedTuple):
    """Equal pipelines before it is known who owns what: how many, and the parameters of one of them by pool."""

    pipelines: int
    parameters: Mapping[str, int]


def expected_sync_s(groups: Sequence[HeldParameters], topology: Topology, workload: Workload) -> float:
    """Gradients to their owners and parameters back over the busiest link, where owners are spread evenly over
    pipelines, and units over a group's pools as its cut says. Each crosses once between two pools; inside a group
    a unit is in the same pool in all pipelines."""
    pipelines, model = sum(group.pipelines for group in groups), workload.trained
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
