"""What the sync of gradients and the return of parameters keep on a chip, as `hetero/engine/sync.py` has them move.

Inside a pool both go in rounds: what a chip sends lies packed, and what it takes lies beside that. Gradients do so from
a unit's last backward until all are summed, of parameters two rounds at a time. What crosses between pools lies in
slots of host memory, but for the bucket that is being added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from balancer.communicators import sharing
from balancer.exchange import Copies, buckets, shared_state
from balancer.plan import Place, Plan
from balancer.workload import Workload

GRADIENT_BYTES = 4  # summed in float32 over micro-batches and pipelines
BUCKET_BYTES = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Staging:
    """Bytes per chip of a stage of a completed plan. `rounds` by unit: gradients on their way inside the pool.

    `summing` is the most of these and of sums, while sums are made; `summed` are the sums that the owner updates by,
    `returning` the most of parameters in rounds.
    """

    rounds: dict[int, int] = field(default_factory=dict)
    summing: int = 0
    summed: int = 0
    returning: int = 0

    def after(self, updated: int) -> int:
        """The most that is there once all is computed: while sums are made, or when parameters go back, the `updated`
        ones beside their masters."""
        return max(self.summing, self.summed + updated + self.returning)


def staging(
    workload: Workload, plan: Plan, place: Place, weight_bytes: int, bucket_bytes: int = BUCKET_BYTES
) -> Staging:
    """Of one stage, whose weights have `weight_bytes` each."""
    shared = shared_state(plan, workload)
    joined, side = sharing(workload, plan, place), _Side(plan, place)
    ours = [copies for copies in shared if joined & copies.uses.keys()]
    least = bucket_bytes * len({copies.hubs[_pool(plan, place)] for copies in ours})
    packed = buckets(ours, lambda one: one.route, lambda one: GRADIENT_BYTES * one.parameters, bucket_bytes)
    rounds = in_rounds(packed, lambda one: GRADIENT_BYTES * sum(c.parameters for c in one), least)
    back = in_rounds(ours, lambda one: GRADIENT_BYTES * one.parameters, least)
    return Staging(
        rounds={c.uses[place][0][2]: GRADIENT_BYTES * side.inside(c) for c in ours if place in c.uses},
        summing=GRADIENT_BYTES * _summing(side, rounds),
        summed=GRADIENT_BYTES * sum(map(side.summed, ours)),
        returning=weight_bytes * _returning(side, back),
    )


def _summing(side: _Side, rounds: list[list[list[Copies]]]) -> int:
    """Rounds are let go of one after another, when what has come in them is added to the sums. What a round sends is
    there twice while it is packed, if it has several parts."""
    now = peak = 0
    for one in rounds:
        now += sum(side.inside(c) for bucket in one for c in bucket)
        sent = [found for bucket in one if (found := sum(map(side.sent, bucket)))]
        split = any(side.is_split(c) for bucket in one for c in bucket)
        peak = max(peak, now + (sum(sent) if len(sent) > 1 or split else 0))
    peak = max(peak, now + max((sum(map(side.passed_on, bucket)) for one in rounds for bucket in one), default=0))
    for one in rounds:
        for bucket in one:
            now += sum(map(side.summed, bucket))
            peak = max(peak, now + sum(map(side.added, bucket)))
        now -= sum(side.inside(c) for bucket in one for c in bucket)
    return peak


def _returning(side: _Side, rounds: list[list[Copies]]) -> int:
    """One round is on its way while the one before is unpacked. What a hub gives to several is there twice at first."""
    sizes = [(sum(map(side.inside, one)), sum(map(side.given, one))) for one in rounds]
    return max((before + now + given for (before, _), (now, given) in pairwise([(0, 0), *sizes])), default=0)


def in_rounds(items: Iterable[_T], bytes_: Callable[[_T], int], least: int) -> list[list[_T]]:
    """Items in their order, until a round has its bytes."""
    rounds: list[list[_T]] = [[]]
    for item in items:
        rounds[-1].append(item)
        if sum(map(bytes_, rounds[-1])) >= least:
            rounds.append([])
    return [found for found in rounds if found]


@dataclass(frozen=True)
class _Side:
    """What some units' state comes to at one place, in parameters."""

    plan: Plan
    place: Place

    def inside(self, copies: Copies) -> int:
        """Sent to the pool's hub, or taken by it from all others; parameters go the same ways back."""
        return self._here(copies) * self._others(copies) if self._is_hub(copies) else self.sent(copies)

    def sent(self, copies: Copies) -> int:
        return self._here(copies) if self.place in copies.uses and not self._is_hub(copies) else 0

    def given(self, copies: Copies) -> int:
        return self.inside(copies) if self._is_hub(copies) and self._others(copies) > 1 else 0

    def summed(self, copies: Copies) -> int:
        return self._here(copies) if copies.owner == self.place else 0

    def passed_on(self, copies: Copies) -> int:
        """Its pool's sum, which another pool's owner gets."""
        passes = self._is_hub(copies) and copies.owner != self.place and self._others(copies) > 0
        return self._here(copies) if passes else 0

    def added(self, copies: Copies) -> int:
        """Another pool's sum, which has come to the owner."""
        return self.summed(copies) if len(copies.hubs) > 1 else 0

    def is_split(self, copies: Copies) -> bool:
        """Whether a unit goes in several messages: to each chip of a stage, or what all chips hold whole by itself."""
        return any(self.plan.pipelines[p].stages[s].tp > 1 for p, s in copies.uses)

    def _here(self, copies: Copies) -> int:
        return copies.parameters // self.plan.pipelines[self.place[0]].stages[self.place[1]].tp

    def _is_hub(self, copies: Copies) -> bool:
        return copies.hubs.get(_pool(self.plan, self.place)) == self.place

    def _others(self, copies: Copies) -> int:
        return sum(_pool(self.plan, use) == _pool(self.plan, self.place) for use in copies.uses) - 1


def _pool(plan: Plan, place: Place) -> str:
    return plan.pipelines[place[0]].stages[place[1]].pool
