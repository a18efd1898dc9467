"""What pipelines owe each other in a step: gradients to owners, parameters back to every other copy.

Copies of one pool add up their gradients there first, at the pool's hub, and take parameters from it: between pools
each gradient and each parameter crosses once, however many pipelines there are. The owner is the hub of its own pool;
in any other the copies take turns from unit to unit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import Place, Plan

_T = TypeVar("_T")
Use = tuple[int, int, int]  # pipeline, chunk, unit


def buckets(
    items: Iterable[_T], route: Callable[[_T], Hashable], bytes_: Callable[[_T], int], least_bytes: int
) -> list[list[_T]]:
    """Items of equal routes together, in their order, until a bucket has its bytes."""
    open_: dict[Hashable, list[_T]] = {}
    closed: list[list[_T]] = []
    for item in items:
        bucket = open_.setdefault(route(item), [])
        bucket.append(item)
        if sum(map(bytes_, bucket)) >= least_bytes:
            closed.append(open_.pop(route(item)))
    return closed + list(open_.values())


def rounds(items: Iterable[_T], bytes_: Callable[[_T], int], bucket_bytes: int, hubs: int) -> list[list[_T]]:
    """Items in their order, whatever their routes, until each of so many hubs has about a bucket of a round."""
    return buckets(items, lambda _: None, bytes_, bucket_bytes * hubs)


@dataclass(frozen=True)
class SharedUnits:
    """The stages that hold some units: `uses` are where their gradients are made, `hubs` by pool. `parameters` are
    those that train."""

    owner: Place
    uses: dict[Place, tuple[Use, ...]]
    hubs: dict[str, Place]
    parameters: int

    @cached_property
    def route(self) -> Hashable:
        """What is alike for units that may travel together."""
        return self.owner, tuple(self.uses), tuple(self.hubs.values())


def shared_state(plan: Plan, workload: Workload) -> list[SharedUnits]:
    """Each unit's state that has several copies, in the order in which gradients are made: from the last unit on. It is
    asked for again and again of one plan, and worked out once."""
    for known, units, found in _KNOWN:
        if known is plan and units is workload.units:
            return found
    _KNOWN.append((plan, workload.units, _shared_state(plan, workload)))
    return _KNOWN[-1][2]


def _shared_state(plan: Plan, workload: Workload) -> list[SharedUnits]:
    owners, later_uses = owner_places(plan), dict(workload.tied)
    chunks = [(p, chunk) for p, pipeline in enumerate(plan.pipelines) for chunk in pipeline.chunks()]
    found = []
    for u in range(len(workload.units) - 1, -1, -1):
        uses: dict[Place, tuple[Use, ...]] = {}
        named = {u, later_uses.get(u, u)}
        for p, (index, stage, (begin, end)) in chunks:
            here = [v for v in named if begin <= v < end]
            if here:  # a weight used twice in a chunk is complete with its first use, the last in a backward
                uses[p, stage] = (*uses.get((p, stage), ()), (p, index, min(here)))
        if len(uses) > 1 and workload.units[u].trained:
            found.append(SharedUnits(owners[u], uses, _hubs(plan, u, owners[u], uses), workload.units[u].trained))
    return found


_KNOWN: deque[tuple[Plan, tuple[UnitWork, ...], list[SharedUnits]]] = deque(maxlen=4)
"""Of the plans that were asked for last."""


def _hubs(plan: Plan, unit: int, owner: Place, places: Iterable[Place]) -> dict[str, Place]:
    by_pool: dict[str, list[Place]] = {}
    for p, s in places:
        by_pool.setdefault(plan.pipelines[p].stages[s].pool, []).append((p, s))
    return {pool: owner if owner in found else found[unit % len(found)] for pool, found in by_pool.items()}


def owner_places(plan: Plan) -> dict[int, Place]:
    """The stage that owns each unit of a completed plan."""
    return {u: place for place, stage in plan.stages() for u in stage.owned_units()}
