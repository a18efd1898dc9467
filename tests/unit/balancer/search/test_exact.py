"""Against brute force over everything that the search chooses, judged by the same simulation."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, permutations, product
from math import inf
from random import Random

import pytest

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.errors import NoPlanFits, PlanError
from balancer.options import CHOICES, BalanceOptions
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.registry import schedules
from balancer.search.search import search
from balancer.simulate.simulate import simulate
from tests.unit.balancer.cases import pool, topology, unit, workload

MOST = 150
"""Plans of an instance."""


def instance(seed):
    """A small problem whose plans are few enough to try all of them, and these plans."""
    draw = Random(seed)
    chosen = tuple(draw.sample(CHOICES, draw.choice([0, 1, 1, 1, 2])))
    while True:
        asked = drawn(draw, chosen)
        plans = []
        for one in every_plan(asked):
            plans.append(one)
            if len(plans) > MOST:
                break
        if len(plans) <= MOST:
            return asked, plans


def drawn(draw, chosen):
    gib = draw.choice([80.0, 80.0, 0.05, 0.1, 0.2])
    pools = [
        pool(f"p{i}", draw.choice([1, 1, 2, 3, 4]), draw.uniform(0.3, 3.0), interconnect=1e9, gib=gib,
             tp=draw.choice([None, 1]))
        for i in range(draw.choice([1, 2, 2, 3]))
    ]  # fmt: skip
    chips = topology(*pools, bytes_per_s=draw.choice([1e7, 1e9, 1e12]), latency_s=draw.choice([0.0, 0.05]))
    units = [recomputing(unit(f"k{u}", draw.uniform(20.0, 200.0), kept=20_000_000)) for u in range(draw.randint(2, 4))]
    work = workload(units, draw.choice([2, 3, 4, 6]))
    work = replace(work, experts=4)
    return Problem(chips, work, datasheet_times(chips, work), options=BalanceOptions(choose=chosen))


def recomputing(one):
    selective = replace(one, activation_bytes=one.activation_bytes // 2)
    full = replace(one, activation_bytes=one.activation_bytes // 10, remade_flops=one.forward_flops)
    return replace(one, recomputed={"selective": selective, "full": full})


def every_plan(asked):
    chosen, work = asked.options.choose, asked.workload
    names = [name for name in schedules() if name != "gpipe"] if "schedule" in chosen else [asked.options.schedule]
    sizes = [n for n in range(1, work.global_batch + 1) if work.global_batch % n == 0]
    sizes = sizes if "micro_batch" in chosen else [1]
    for parts in parts_of(list(asked.topology.pools)):
        for shape in product(*(list(groups(part, sizes, asked)) for part in parts)):
            for name in names if max(len(stages) for _, _, stages in shape) > 1 else names[:1]:
                written = [list(stagings(stages, asked)) for _, _, stages in shape]
                for cuts in product(*written):
                    for counts in shares([(n, size) for n, size, _ in shape], work.global_batch):
                        yield Plan(schedule=name, pipelines=tuple(
                            PipelinePlan(share=count * size, micro_batch=size, stages=stages)
                            for (_, size, _), stages, each in zip(shape, cuts, counts, strict=True)
                            for count in each
                        ))  # fmt: skip


def parts_of(pools):
    """Disjoint parts of some of the pools, in the order of their first ones."""
    if not pools:
        return
    first, *rest = pools
    yield from parts_of(rest)
    for size in range(len(rest) + 1):
        for others in combinations(rest, size):
            yield [(first, *others)]
            left = [one for one in rest if one not in others]
            yield from ([(first, *others), *more] for more in parts_of(left))


def groups(part, sizes, asked):
    """Numbers of equal pipelines, sizes of micro-batches, and (pool, tp) of each stage."""
    for tps in product(*(one.tp_sizes() for one in part)):
        rooms = [one.tp_groups(tp) for one, tp in zip(part, tps, strict=True)]
        for n in range(1, min([*rooms, asked.workload.global_batch]) + 1):
            for counts in product(*(range(1, room // n + 1) for room in rooms)):
                if sum(counts) <= len(asked.workload.units):
                    rows = [[(one.name, tp)] * k for one, tp, k in zip(part, tps, counts, strict=True)]
                    for size, order in product(sizes, permutations(rows)):
                        yield n, size, [stage for row in order for stage in row]


def stagings(stages, asked):
    n = len(asked.workload.units)
    for inner in combinations(range(1, n), len(stages) - 1):
        ranges = pairwise((0, *inner, n))
        yield from product(*(list(ways(*one, units, asked)) for one, units in zip(stages, ranges, strict=True)))


def ways(name, tp, units, asked):
    chosen, n = asked.options.choose, units[1] - units[0]
    again = [{}]
    if "recompute" in chosen:
        again += [{"selective": k} for k in range(1, n + 1)] + [{"full": k} for k in range(1, n + 1)]
        again += [{"full": k, "selective": n - k} for k in range(1, n)]
    for counted, host, rows, slices, experts in product(
        again,
        ("chip", "host") if "optimizer" in chosen else ("chip",),
        (False, True) if "sequence_parallel" in chosen and tp > 1 else (False,),
        (1, 2, 4) if "tp_slices" in chosen and tp > 1 else (1,),
        ("split", "spread") if "experts" in chosen and tp > 1 else ("split",),
    ):
        yield StagePlan(
            pool=name, tp=tp, units=(units,), recompute=counted, optimizer=host, sequence_parallel=rows,
            tp_slices=slices, experts=experts,
        )  # fmt: skip


def shares(groups, batch):
    """Micro-batches of each group's pipelines, of equal ones the first no fewer."""
    if not groups:
        if batch == 0:
            yield ()
        return
    (n, size), *rest = groups
    for each in product(range(1, batch // size + 1), repeat=n):
        if list(each) == sorted(each, reverse=True) and sum(each) * size <= batch:
            yield from ((each, *more) for more in shares(rest, batch - sum(each) * size))


def step_s(plan, asked):
    try:
        return simulate(complete(plan, asked), asked).step_s
    except PlanError:
        return inf


def check(seed):
    asked, plans = instance(seed)
    best = min((step_s(plan, asked) for plan in plans), default=inf)
    if best == inf:
        with pytest.raises(NoPlanFits):
            search(asked, effort=1e6)
        return
    found = search(asked, effort=1e6)
    assert found.prediction.step_s == pytest.approx(best, rel=1e-9)
    assert found.certificate.proven
    assert found.bound_s <= found.prediction.step_s


@pytest.mark.parametrize("seed", range(6))
def test_some_small_problems_have_no_better_plan(seed):
    check(seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(6, 306))
def test_no_small_problem_has_a_better_plan(seed):
    check(seed)
