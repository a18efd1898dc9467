"""What it costs to go from one plan to another while the run stands: bytes, seconds, and room for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from balancer.cost.times import transfer_s
from balancer.cost.topology import Topology
from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import Plan, StagePlan
from balancer.problem import Problem
from bridge.precision import ITEM_BYTES

WIDE = "float32"
MOMENTS_BYTES, MASTER_BYTES = 8, 4
"""Of a parameter, with the optimizer that keeps most."""
PoolPair = tuple[str, str]
_Chip = tuple[str, int]


@dataclass(frozen=True)
class Move:
    """`nbytes` go from chip to chip, which takes `seconds` over the busiest link; `shortage_bytes` is what some chip
    lacks for what both plans give it, 0 where there is room."""

    nbytes: int
    seconds: float
    shortage_bytes: int


class _Held(NamedTuple):
    """A part [begin, end) of a unit on a chip, which it computes with, and updates if it is `owned`."""

    begin: float
    end: float
    precision: str
    owned: bool

    @property
    def makes_values(self) -> bool:
        """From masters, which it gets in any case."""
        return self.owned and self.precision != WIDE

    def values_bytes(self, unit: UnitWork) -> float:
        return (self.end - self.begin) * unit.parameters * ITEM_BYTES[self.precision]

    def owner_bytes(self, unit: UnitWork) -> float:
        """Of moments, and of masters that are not values."""
        if not self.owned:
            return 0.0
        return (self.end - self.begin) * unit.trained * (MOMENTS_BYTES + MASTER_BYTES * (self.precision != WIDE))

    def missing(self, before: _Held | None) -> float:
        """The part of it that was not there before."""
        if before is None:
            return 1.0
        common = min(self.end, before.end) - max(self.begin, before.begin)
        return 1.0 - max(0.0, common) / (self.end - self.begin)


@dataclass(frozen=True)
class _Holdings:
    """Who has what under a plan."""

    plan: Plan

    @cached_property
    def held(self) -> dict[tuple[_Chip, int], _Held]:
        """By chip and unit."""
        return {((stage.pool, chip), unit): held for stage, chip, unit, held in _parts(self.plan)}

    @cached_property
    def pools(self) -> dict[int, list[str]]:
        """By unit, who computes with it."""
        found: dict[int, list[str]] = {}
        for _, stage in self.plan.stages():
            for unit in stage.unit_indices():
                found.setdefault(unit, []).append(stage.pool)
        return found

    @cached_property
    def owners(self) -> dict[int, str]:
        """By unit, the pool that updates it."""
        return {unit: stage.pool for _, stage in self.plan.stages() for unit in stage.owned_units()}


def _parts(plan: Plan) -> Iterator[tuple[StagePlan, int, int, _Held]]:
    for _, stage in plan.stages():
        owned, chips = set(stage.owned_units()), stage.chips or ()
        for position, chip in enumerate(chips):
            part = position / stage.tp, (position + 1) / stage.tp
            for unit in stage.unit_indices():
                yield stage, chip, unit, _Held(*part, stage.precision or WIDE, unit in owned)


def move(before: Plan, after: Plan, problem: Problem) -> Move:
    """Between two completed plans, as far as whole units tell it. What a chip has it keeps, what its pool has comes
    from there, all else crosses into a pool once."""
    were, will = _Holdings(before), _Holdings(after)
    crossing = _crossing(were, will, problem.workload)
    seconds = max((_seconds(way, nbytes, problem.topology) for way, nbytes in crossing.items()), default=0.0)
    short = _shortage_bytes(were, will, problem.workload, problem.topology)
    return Move(round(sum(crossing.values())), seconds, short)


def _crossing(were: _Holdings, will: _Holdings, work: Workload) -> dict[PoolPair, float]:
    crossing: dict[PoolPair, float] = {}
    came: set[tuple[str, int, float]] = set()
    for (chip, u), held in will.held.items():
        pool, unit, old = chip[0], work.units[u], were.held.get((chip, u))
        values = 0.0 if held.makes_values else held.missing(old) * held.values_bytes(unit)
        moved = held.missing(old if old and old.owned else None) * held.owner_bytes(unit)
        is_near = pool in were.pools[u] or (pool, u, held.begin) in came
        if values:
            came.add((pool, u, held.begin))
        for way, nbytes in (((pool if is_near else were.pools[u][0], pool), values), ((were.owners[u], pool), moved)):
            if nbytes:
                crossing[way] = crossing.get(way, 0.0) + nbytes
    return crossing


def _seconds(way: PoolPair, nbytes: float, topology: Topology) -> float:
    """Over the slowest link where it stays inside a pool: state crosses the bridge there too."""
    links = [topology.link(*way)] if way[0] != way[1] else list(topology.links)
    return max((transfer_s(link, nbytes) for link in links), default=0.0)


def _shortage_bytes(were: _Holdings, will: _Holdings, work: Workload, topology: Topology) -> int:
    """A chip has all that it had, and beside it what is new."""
    need: Counter[_Chip] = Counter()
    for (chip, u), held in were.held.items():
        need[chip] += round(held.values_bytes(work.units[u]) + held.owner_bytes(work.units[u]))
    for (chip, u), held in will.held.items():
        old = were.held.get((chip, u))
        is_new = old is None or old[:3] != held[:3]
        need[chip] += round(held.values_bytes(work.units[u])) if is_new else 0
        need[chip] += round(held.owner_bytes(work.units[u])) if is_new or not (old and old.owned) else 0
    lacking = (nbytes - topology.pool(pool).memory_bytes for (pool, _), nbytes in need.items())
    return max(0, *lacking)
