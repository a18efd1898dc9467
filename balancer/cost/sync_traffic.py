"""What pipelines owe each other in a step: gradients to owners, parameters back to every other copy.

Copies of one pool add up their gradients there first, at the pool's hub, and take parameters from it: between pools
each gradient and each parameter crosses once, however many pipelines there are. The owner is the hub of its own pool;
in any other the copies take turns from unit to unit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import PipelinePlan, Place, Plan

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


def rounds_of(
    held: Mapping[int, set[Place]], hubs: Mapping[int, Place], bytes_: Callable[[int], int], bucket_bytes: int
) -> Iterator[list[int]]:
    """What copies of one pool give each other at once, by numbers, in their order: of those who share something. What
    one place alone holds stands alone."""
    sharing: list[tuple[set[Place], list[int]]] = []
    for n, places in held.items():
        if len(places) == 1:
            yield [n]
            continue
        others = [one for one in sharing if one[0] & places]
        joined = places.union(*(members for members, _ in others))
        among = {n, *(number for _, found in others for number in found)}
        sharing = [one for one in sharing if one not in others] + [(joined, [m for m in held if m in among])]
    for _, numbers in sharing:
        yield from rounds(numbers, bytes_, bucket_bytes, len({hubs[n] for n in numbers}))


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


def shared_state(plan: Plan, workload: Workload, among: Collection[int] | None = None) -> list[SharedUnits]:
    """Each unit's state that has several copies, in the order in which gradients are made: from the last unit on. With
    `among`, only those pipelines' uses of it. All uses are asked for again and again of one plan, and worked out
    once."""
    if among is not None:
        return _shared_state(plan, workload, among)
    for known, units, found in _KNOWN:
        if known is plan and units is workload.units:
            return found
    _KNOWN.append((plan, workload.units, _shared_state(plan, workload, None)))
    return _KNOWN[-1][2]


_KNOWN: deque[tuple[Plan, tuple[UnitWork, ...], list[SharedUnits]]] = deque(maxlen=4)
"""Of the plans that were asked for last."""


def _shared_state(plan: Plan, workload: Workload, among: Collection[int] | None) -> list[SharedUnits]:
    owners, later_uses, holders = owner_places(plan), dict(workload.tied), _Holders(plan)
    told = range(len(plan.pipelines)) if among is None else sorted(among)
    found = []
    for u in range(len(workload.units) - 1, -1, -1):
        if not workload.units[u].trained:
            continue
        by_shape = holders.stages({u, later_uses.get(u, u)})
        copies = holders.copies(by_shape)
        if sum(map(len, copies.values())) > 1:
            uses = holders.uses(by_shape, told)
            found.append(SharedUnits(owners[u], uses, _hubs(copies, u, owners[u]), workload.units[u].trained))
    return found


_Stages = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""Of a pipeline: the stages that hold some units, in the order of their chunks, each with (chunk, unit) of its uses."""


class _Holders:
    """Who holds which units. What is alike for pipelines of one shape is worked out once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        numbers: dict[Hashable, int] = {}
        self._shape_of: list[int] = []
        self._first: list[PipelinePlan] = []
        for pipeline in plan.pipelines:
            number = numbers.setdefault(tuple((stage.pool, stage.units) for stage in pipeline.stages), len(numbers))
            self._shape_of.append(number)
            if number == len(self._first):
                self._first.append(pipeline)
        self._chunks = [pipeline.chunks() for pipeline in self._first]
        self._copies: dict[tuple[tuple[int, ...], ...], dict[str, list[Place]]] = {}

    def stages(self, named: Collection[int]) -> list[_Stages]:
        """By shape, of units that are one state. A weight used twice in a chunk is complete with its first use, the
        last in a backward."""
        found = []
        for chunks in self._chunks:
            here: dict[int, tuple[tuple[int, int], ...]] = {}
            for index, stage, (begin, end) in chunks:
                units = [unit for unit in named if begin <= unit < end]
                if units:
                    here[stage] = (*here.get(stage, ()), (index, min(units)))
            found.append(tuple(here.items()))
        return found

    def copies(self, by_shape: list[_Stages]) -> dict[str, list[Place]]:
        """The places that hold them, by pool."""
        key = tuple(tuple(stage for stage, _ in stages) for stages in by_shape)
        if key not in self._copies:
            found = self._copies[key] = {}
            for p, shape in enumerate(self._shape_of):
                for s in key[shape]:
                    found.setdefault(self._first[shape].stages[s].pool, []).append((p, s))
        return self._copies[key]

    def uses(self, by_shape: list[_Stages], pipelines: Iterable[int]) -> dict[Place, tuple[Use, ...]]:
        return {
            (p, s): tuple((p, index, unit) for index, unit in uses)
            for p in pipelines
            for s, uses in by_shape[self._shape_of[p]]
        }


def _hubs(copies: Mapping[str, list[Place]], unit: int, owner: Place) -> dict[str, Place]:
    return {pool: owner if owner in found else found[unit % len(found)] for pool, found in copies.items()}


def owner_places(plan: Plan) -> dict[int, Place]:
    """The stage that owns each unit of a completed plan."""
    return {u: place for place, stage in plan.stages() for u in stage.owned_units()}
