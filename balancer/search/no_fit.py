"""Why no plan fits, and the smallest change after which one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, inf

from backends.sizes import size_text
from balancer.cost.topology import PoolSpec, Topology
from balancer.errors import NoPlanFits
from balancer.problem import Problem
from balancer.search.cut import shortest, spread
from balancer.search.grouping import Group
from balancer.search.pricing import Pricer
from balancer.search.seeking import Seeking
from balancer.search.space import LayoutSpace


def explain(problem: Problem) -> NoPlanFits:
    """The error for a search without result. A change that it names was tried: with it the search succeeds."""
    work = problem.workload
    if work.shadow is not None and _fits(replace(problem, workload=replace(work, shadow=None))):
        rule = "in no plan that fits has it a stage, another pool one too, and its chip room to compute that again"
        remedy = "name a pool with more memory, or leave train.shadow out"
        return NoPlanFits("train.shadow.pool", work.shadow, rule, remedy)
    fix = next((text for text, changed in _changes(problem) if _fits(changed)), None)
    pool, factor = _closest(problem)
    if pool is None:
        rule = "no division of the pools into stages has a legal tp, enough units and a micro-batch for each pipeline"
        names = [p.name for p in problem.topology.pools]
        return NoPlanFits("pools", names, rule, fix or "set tp to auto, use more sequences per step, or fewer chips")
    limit = pool.memory_bytes
    need = round(limit * factor)
    rule = f"the closest plan needs {size_text(need)} on a chip of {pool.name}, which has {pool.memory_limit}"
    remedy = fix or f"use chips with {size_text(need)}, more of them, or a smaller model"
    return NoPlanFits(f"pools.{pool.name}", pool.count, rule, remedy, need, limit)


def _fits(problem: Problem) -> bool:
    return _closest(problem)[1] <= 1 and bool(Seeking(problem).run())


def _closest(problem: Problem) -> tuple[PoolSpec | None, float]:
    """Of pipelines over all pools, those with most memory first, with the strategies that need least: the fullest
    stage's pool where that overflows least, and how many times over its limit it is."""
    space = LayoutSpace(replace(problem, topology=_roomy(problem)))
    pricer = Pricer(problem, space)
    closest: tuple[PoolSpec | None, float] = (None, inf)
    for layouts in space.of(tuple(pool.name for pool in problem.topology.pools)).layouts:
        for row in layouts.roomiest:
            filled = _filled(pricer, layouts.roomiest_group(row, lambda name: problem.topology.pool(name).memory_bytes))
            if filled[1] < closest[1]:
                closest = filled
    return closest


def _filled(pricer: Pricer, group: Group) -> tuple[PoolSpec | None, float]:
    """The fullest stage's pool, and how full it is, where memory alone decides the cut."""
    problem, micro_batches = pricer.problem, ceil(pricer.problem.workload.global_batch / group.pipelines)
    places = pricer.places(group, problem.schedules[0], group.pipelines, ceil(micro_batches / group.micro_batch))
    pools, bands = [problem.topology.pool(name) for name, _ in group.stages], []
    for s, (place, pool, (_, tp)) in enumerate(zip(places, pools, group.stages, strict=True)):
        cost = pricer.space.cost(pool.name, tp, group.micro_batch)
        bands.append(pricer.room.need_bytes(group, s, cost.least_need(place)) / pool.memory_bytes)
    factor = shortest(bands)
    ranges = spread(bands, factor) if factor < inf else None
    if ranges is None:
        return None, inf
    full = [float(band[end, band.shape[1] + begin - end]) for band, (begin, end) in zip(bands, ranges, strict=True)]
    fullest = full.index(max(full))
    return pools[fullest], full[fullest]


def _roomy(problem: Problem) -> Topology:
    """The same chips, whatever the memory."""
    pools = tuple(replace(pool, memory_bytes=2**62) for pool in problem.topology.pools)
    return replace(problem.topology, pools=pools)


def _changes(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Smaller micro-batches, then more chips in one pool, the fewest first."""
    size = problem.micro_batch if len(problem.micro_batch_sizes) == 1 else 1
    for smaller in (n for n in range(size - 1, 0, -1) if problem.workload.global_batch % n == 0):
        yield f"set train.micro_batch to {smaller}", replace(problem, micro_batch=smaller)
    pools = problem.topology.pools
    for more in sorted((pool.count * (factor - 1), i, factor) for i, pool in enumerate(pools) for factor in (2, 4, 8)):
        _, i, factor = more
        grown = replace(pools[i], count=pools[i].count * factor)
        topology = replace(problem.topology, pools=(*pools[:i], grown, *pools[i + 1 :]))
        yield f"raise pools.{grown.name}.count to {grown.count}", replace(problem, topology=topology)
