"""Why no plan fits, and the smallest change after which one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from balancer.cost.topology import PoolSpec
from balancer.errors import NoPlanFits
from balancer.problem import Problem
from balancer.search.candidates import all_groupings, predictions
from balancer.search.pricing import Pricer, fill_by_memory

_GIB = 2**30


def explain(problem: Problem) -> NoPlanFits:
    """The error for a search without result. A change that it names was tried: with it the search succeeds."""
    fix = next((text for text, changed in _changes(problem) if _fits(changed)), None)
    pool, factor = _closest(problem)
    if pool is None:
        rule = "no division of the pools into stages has a legal tp, enough units and a micro-batch for each pipeline"
        names = [p.name for p in problem.topology.pools]
        return NoPlanFits("pools", names, rule, fix or "set tp to auto, use more sequences per step, or fewer chips")
    limit = pool.memory_bytes
    need = round(limit * factor)
    rule = f"the closest plan needs {need / _GIB:.2f} GiB on a chip of {pool.name}, which has {pool.memory_limit}"
    remedy = fix or f"use chips with {need / _GIB:.2f} GiB, more of them, or a smaller model"
    return NoPlanFits(f"pools.{pool.name}", pool.count, rule, remedy, need, limit)


def _fits(problem: Problem) -> bool:
    return _closest(problem)[1] <= 1 and bool(predictions(problem))


def _closest(problem: Problem) -> tuple[PoolSpec | None, float]:
    """Of single pipelines over all pools, those with most memory first: the fullest stage's pool where that overflows
    least, and how many times over its limit it is."""
    pricer = Pricer(problem)
    closest: tuple[PoolSpec | None, float] = (None, inf)
    for grouping in all_groupings(problem):
        group, pools = grouping[0], [problem.topology.pool(segment.pool) for segment in grouping[0].segments]
        if len(grouping) > 1 or pools != sorted(pools, key=lambda pool: -pool.memory_bytes):
            continue
        filled = fill_by_memory(pricer.costs(group, group.pipelines), problem.workload.cuts)
        if filled is None:
            continue
        stages = [problem.topology.pool(name) for name, _ in group.stages]
        needs = [pricer.memory.need_bytes(group, s, bytes_) for s, bytes_ in enumerate(filled)]
        factor, s = max((need / pool.memory_bytes, s) for s, (need, pool) in enumerate(zip(needs, stages, strict=True)))
        if factor < closest[1]:
            closest = stages[s], factor
    return closest


def _changes(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Smaller micro-batches, then more chips in one pool, the fewest first."""
    size = problem.micro_batch
    for smaller in (n for n in range(size - 1, 0, -1) if problem.workload.global_batch % n == 0):
        yield f"set train.micro_batch to {smaller}", replace(problem, micro_batch=smaller)
    pools = problem.topology.pools
    for more in sorted((pool.count * (factor - 1), i, factor) for i, pool in enumerate(pools) for factor in (2, 4, 8)):
        _, i, factor = more
        grown = replace(pools[i], count=pools[i].count * factor)
        topology = replace(problem.topology, pools=(*pools[:i], grown, *pools[i + 1 :]))
        yield f"raise pools.{grown.name}.count to {grown.count}", replace(problem, topology=topology)
