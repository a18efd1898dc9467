"""What the sync of gradients and the return of parameters keep on a chip, as `hetero/engine/state/` has them move
(`sync.py`, `parameter_return.py`).

Inside a pool both go in rounds: what a chip sends lies packed, and what it takes lies beside that. Gradients do so from
a round's last backward until all are summed, parameters from the update until the next step's first forward comes to
them. What crosses between pools lies in slots of host memory, but for the bucket that is being added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from balancer.cost.sync_traffic import SharedUnits, buckets, rounds, shared_state
from balancer.cost.workload import GRADIENT_BYTES, Workload
from balancer.memory.communicators import sharing
from balancer.plan.plan import Place, Plan
from bridge.words.channel import SYNC_BUCKET_BYTES


@dataclass(frozen=True)
class SyncMemory:
    """Bytes per chip of a stage of a completed plan. `rounds`: gradients on their way inside the pool, by the unit
    whose last backward sends them off.

    `summing` is the most of these and of sums, while sums are made; `summed` are the sums that the owner updates by,
    `back` parameters in rounds, by the unit whose first forward lets go of them, and `returning` all of these.
    """

    rounds: dict[int, int] = field(default_factory=dict)
    summing: int = 0
    summed: int = 0
    back: dict[int, int] = field(default_factory=dict)

    @property
    def returning(self) -> int:
        return sum(self.back.values())

    def after(self, updating: int, rounded: int) -> int:
        """The most that is there once all is computed: while sums are made, or updates with their temporaries, what is
        `rounded` for pools of another precision, and what goes back meanwhile."""
        return max(self.summing, self.summed + max(updating, rounded + self.returning))


def sync_memory(
    workload: Workload, plan: Plan, place: Place, weight_bytes: int, bucket_bytes: int = SYNC_BUCKET_BYTES
) -> SyncMemory:
    """Of one stage, whose weights have `weight_bytes` each."""
    shared, side = shared_state(plan, workload), _Side(plan, place)
    together = shared_inside(workload, plan, place)
    inside = set(map(id, together))
    apart = [units for units in shared if id(units) not in inside and place in units.uses]
    sent = gradient_rounds(plan, place, together, bucket_bytes)
    return SyncMemory(
        rounds=_sent_off(side, sent),
        summing=GRADIENT_BYTES * _summing(side, sent, _in_buckets(apart, bucket_bytes)),
        summed=GRADIENT_BYTES * sum(map(side.summed, shared)),
        back=_coming_back(side, together, weight_bytes),
    )


SyncRound = list[list[SharedUnits]]


def shared_inside(workload: Workload, plan: Plan, place: Place) -> list[SharedUnits]:
    """What moves between the stages that a place shares state with, inside their pool."""
    joined = sharing(workload, plan, place)
    return [units for units in shared_state(plan, workload) if len(joined & units.uses.keys()) > 1]


def gradient_rounds(plan: Plan, place: Place, together: list[SharedUnits], bucket_bytes: int) -> list[SyncRound]:
    """The buckets of `together` by round, the last units first."""
    packed, hubs = _in_buckets(together, bucket_bytes), {units.hubs[_pool(plan, place)] for units in together}
    return rounds(packed, lambda bucket: sum(map(_gradient_bytes, bucket)), bucket_bytes, len(hubs))


def _sent_off(side: _Side, rounds: list[SyncRound]) -> dict[int, int]:
    """Rounds leave in their order, each when the place has made all of its own."""
    made, found = 0, dict[int, int]()
    for one in rounds:
        units = [c.uses[side.place][0][2] for bucket in one for c in bucket if side.place in c.uses]
        if units:
            made = min(units) if not found else min(made, *units)
            found[made] = found.get(made, 0) + GRADIENT_BYTES * side.in_round(one)
    return found


def _coming_back(side: _Side, together: Iterable[SharedUnits], weight_bytes: int) -> dict[int, int]:
    found = Counter[int]()
    for units in together:
        if side.place in units.uses:
            found[units.uses[side.place][0][2]] += weight_bytes * side.inside(units)
    return dict(found)


def _summing(side: _Side, rounds: list[SyncRound], alone: SyncRound) -> int:
    """All rounds are on their way at first. What one has sent goes when it is over, what it has taken when that is
    added to the sums. Before, the pool's sums are passed on."""
    now = peak = sum(map(side.in_round, rounds))
    sent = [sum(side.of(side.sent, bucket) for bucket in one) for one in rounds]
    for number, one in enumerate(rounds):
        if passed := [found for bucket in one if (found := side.of(side.passed_on, bucket))]:
            now, sent[number] = now - sent[number], 0
            peak = max(peak, now + max(passed))
    for left, one in zip([*sent, 0], [*rounds, alone], strict=True):
        now -= left
        for bucket in one:
            now += side.of(side.summed, bucket)
            peak = max(peak, now + max(side.of(side.landed, bucket), side.of(side.added, bucket)))
        now -= side.in_round(one) - sum(side.of(side.sent, bucket) for bucket in one)
    return peak


def _in_buckets(ours: Iterable[SharedUnits], bucket_bytes: int) -> SyncRound:
    return buckets(ours, lambda one: one.route, _gradient_bytes, bucket_bytes)


def _gradient_bytes(units: SharedUnits) -> int:
    return GRADIENT_BYTES * units.parameters


@dataclass(frozen=True)
class _Side:
    """What some units' state comes to at one place, in parameters."""

    plan: Plan
    place: Place

    def of(self, what: Callable[[SharedUnits], int], bucket: Iterable[SharedUnits]) -> int:
        return sum(map(what, bucket))

    def in_round(self, one: SyncRound) -> int:
        return sum(self.of(self.inside, bucket) for bucket in one)

    def inside(self, units: SharedUnits) -> int:
        """Sent to the pool's hub, or taken by it from all others; parameters go the same ways back."""
        return self._here(units) * self._others(units) if self._is_hub(units) else self.sent(units)

    def sent(self, units: SharedUnits) -> int:
        return self._here(units) if self.place in units.uses and not self._is_hub(units) else 0

    def summed(self, units: SharedUnits) -> int:
        return self._here(units) if units.owner == self.place else 0

    def passed_on(self, units: SharedUnits) -> int:
        """Its pool's sum, which another pool's owner gets, and what is put together for it."""
        if not self._is_hub(units) or units.owner == self.place or not self._others(units):
            return 0
        return self._here(units) + self.landed(units)

    def landed(self, units: SharedUnits) -> int:
        """At a hub: what comes in parts, from stages of the pool with a larger tp, is put together to be added."""
        stages = [self.plan.pipelines[p].stages[s] for p, s in units.uses] if self._is_hub(units) else []
        mine = self.plan.pipelines[self.place[0]].stages[self.place[1]]
        return self._here(units) * sum(stage.pool == mine.pool and stage.tp > mine.tp for stage in stages)

    def added(self, units: SharedUnits) -> int:
        """Another pool's sum, which has come to the owner."""
        return self.summed(units) if len(units.hubs) > 1 else 0

    def _here(self, units: SharedUnits) -> int:
        return units.parameters // self.plan.pipelines[self.place[0]].stages[self.place[1]].tp

    def _is_hub(self, units: SharedUnits) -> bool:
        return units.hubs.get(_pool(self.plan, self.place)) == self.place

    def _others(self, units: SharedUnits) -> int:
        return sum(_pool(self.plan, use) == _pool(self.plan, self.place) for use in units.uses) - 1


def _pool(plan: Plan, place: Place) -> str:
    return plan.pipelines[place[0]].stages[place[1]].pool
