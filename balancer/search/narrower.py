"""Narrower problems: what is best of them is a plan of the whole one, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from balancer.problem import Problem


def without_each_pool(problem: Problem) -> Iterator[Problem]:
    names = frozenset(pool.name for pool in problem.topology.pools)
    if len(names) > 1:
        yield from (problem.only(names - {pool.name}) for pool in problem.topology.pools)


def with_one_schedule(problem: Problem) -> Iterator[Problem]:
    """Each that it leaves open."""
    if len(problem.schedules) > 1:
        left = tuple(one for one in problem.options.choose if one != "schedule")
        for name in problem.schedules:
            options = problem.options.model_copy(update={"choose": left, "schedule": name})
            yield replace(problem, options=options)


def with_one_tp(problem: Problem) -> Iterator[Problem]:
    """For all pools, each that all of them may have."""
    pools = problem.topology.pools
    sizes = [set(pool.tp_sizes()) for pool in pools]
    if len(sizes) > 1 and any(len(each) > 1 for each in sizes):
        for tp in sorted(set.intersection(*sizes)):
            fixed = tuple(replace(pool, tp=tp) for pool in pools)
            yield replace(problem, topology=replace(problem.topology, pools=fixed))
