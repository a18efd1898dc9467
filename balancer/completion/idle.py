"""Chips that a plan gives no work: how many of which pool, why, and what would use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import LegalTp
from balancer.plan.plan import Plan


@dataclass(frozen=True)
class Idle:
    """`chips` of a pool's `count` have nothing to do; `why` and `remedy` are empty where nobody has said them."""

    pool: str
    chips: int
    count: int
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        told = "; ".join(filter(None, (self.why, self.remedy)))
        return f"{self.chips} of {self.count} chips of pool {self.pool} idle" + (told and f": {told}")


def used_chips(plan: Plan) -> Counter[str]:
    """By pool."""
    used = Counter[str]()
    for (p, _), stage in plan.stages():
        used[stage.pool] += stage.tp * plan.pipelines[p].replicas
    return used


def idle_chips(plan: Plan, topology: Topology, legal_tp: LegalTp | None = None) -> tuple[Idle, ...]:
    """What a completed plan leaves of each pool, as far as plan and topology say why."""
    return tuple(_idle_chips(plan, topology, legal_tp))


def _idle_chips(plan: Plan, topology: Topology, legal_tp: LegalTp | None) -> Iterator[Idle]:
    used = used_chips(plan)
    for pool in topology.pools:
        idle = pool.count - used[pool.name]
        if idle == pool.count:
            why, remedy = "the plan has no stage there", "give it a stage, or take the pool out of the job"
        elif has_room(plan, pool):
            why = f"the plan's stages there take {used[pool.name]}"
            remedy = f"give it more stages or pipelines there, or set pools.{pool.name}.count to {used[pool.name]}"
        else:
            why, remedy = _remainder(plan, pool, idle, legal_tp)
        if idle:
            yield Idle(pool.name, idle, pool.count, why, remedy)


def has_room(plan: Plan, pool: PoolSpec) -> bool:
    """Whether one more stage like the smallest that the plan has on the pool would find its chips."""
    free = Counter(pool.host_of(chip) for chip in range(pool.count))
    smallest = pool.count
    for _, stage in plan.stages():
        if stage.pool == pool.name:
            smallest = min(smallest, stage.tp)
            free.subtract(pool.host_of(chip) for chip in stage.chips or ())
    together = sum(free.values()) if smallest > pool.chips_per_host else max(free.values())
    return together >= smallest


def _remainder(plan: Plan, pool: PoolSpec, idle: int, legal_tp: LegalTp | None) -> tuple[str, str]:
    """Why fewer chips are left than one more stage takes, and what leaves none."""
    sizes = sorted({stage.tp for _, stage in plan.stages() if stage.pool == pool.name})
    one_host = pool.chips_per_host >= pool.count
    if one_host and len(sizes) == 1:
        why = f"tp {sizes[0]} does not divide {pool.count}"
    else:
        why = f"no host has the {sizes[0]} chips left that one more stage of tp {sizes[0]} takes"
    good = [tp for tp in range(1, pool.chips_per_host + 1) if _divides(pool, tp) and not (legal_tp and legal_tp(tp))]
    ways = [f"a tp of {' or '.join(map(str, good))} there"] if good else []
    ways += [f"a count of {pool.count - idle}"] if one_host else []
    return why, f"use {', or '.join(ways or ['hosts with as many chips as tp divides'])}"


def _divides(pool: PoolSpec, tp: int) -> bool:
    return pool.tp_groups(tp) * tp == pool.count
