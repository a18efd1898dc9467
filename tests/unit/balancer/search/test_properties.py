"""What holds of the best plan, whatever the problem: searches that look through everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.cost.times import datasheet_times
from balancer.errors import NoPlanFits
from balancer.options import BalanceOptions
from balancer.problem import Problem
from balancer.search.search import search
from tests.examples import out_of_100
from tests.unit.balancer.cases import pool, topology, unit, workload

AS_GOOD = 1.001
"""A warm-up that hides links this well is taken for as good as a deeper one."""


@st.composite
def problems(draw):
    pools = [
        pool(f"p{i}", draw(st.sampled_from([1, 1, 2])), draw(st.floats(0.3, 3.0)), gib=draw(st.sampled_from([0.2, 80])))
        for i in range(draw(st.integers(1, 2)))
    ]
    links = {"bytes_per_s": draw(st.sampled_from([1e7, 1e12])), "latency_s": draw(st.sampled_from([0.0, 0.05]))}
    units = [unit(f"k{u}", draw(st.floats(20.0, 200.0)), kept=2 * 10**7) for u in range(draw(st.integers(1, 3)))]
    work = workload(units, draw(st.integers(1, 3)))
    chosen = draw(st.sampled_from([(), ("optimizer",), ("micro_batch",)]))
    return asked(topology(*pools, **links), work, options=BalanceOptions(choose=chosen))


def asked(chips, work, **options):
    return Problem(chips, work, datasheet_times(chips, work), **options)


def with_pools(problem, **changes):
    pools = tuple(replace(one, **{name: change(one) for name, change in changes.items()})
                  for one in problem.topology.pools)  # fmt: skip
    return asked(replace(problem.topology, pools=pools), problem.workload, options=problem.options)


def best_s(problem):
    try:
        found = search(problem, effort=1e6)
    except NoPlanFits:
        return float("inf")
    assert found.certificate.proven
    return found.prediction.step_s


@given(problem=problems())
@out_of_100(6)
def test_more_memory_is_never_worse(problem):
    roomier = with_pools(problem, memory_bytes=lambda one: 2 * one.memory_bytes)
    assert best_s(roomier) <= AS_GOOD * best_s(problem)


@given(problem=problems())
@out_of_100(6)
def test_faster_links_are_never_worse(problem):
    links = tuple(replace(link, bytes_per_s=2 * link.bytes_per_s) for link in problem.topology.links)
    faster = replace(problem, topology=replace(problem.topology, links=links))
    assert best_s(faster) <= AS_GOOD * best_s(problem)


@given(problem=problems())
@out_of_100(6)
def test_more_chips_are_never_worse(problem):
    more = with_pools(problem, count=lambda one: 2 * one.count, chips_per_host=lambda one: 2 * one.count)
    assert best_s(more) <= AS_GOOD * best_s(problem)


@given(problem=problems())
@out_of_100(4)
def test_the_order_of_equal_pools_changes_nothing(problem):
    one = problem.topology.pools[0]
    chips = [replace(one, name=name) for name in ("x", "y")]
    both = [asked(topology(*order, latency_s=0.05), problem.workload) for order in (chips, chips[::-1])]
    assert best_s(both[0]) == pytest.approx(best_s(both[1]), rel=1e-9)


@given(problem=problems())
@out_of_100(20)
def test_no_step_is_shorter_than_its_bounds(problem):
    try:
        found = search(problem)
    except NoPlanFits:
        return
    flops = problem.workload.global_batch * sum(one.model_flops for one in problem.workload.units)
    assert found.bound_s <= found.prediction.step_s
    assert flops / sum(one.count * one.flops_per_s for one in problem.topology.pools) <= found.prediction.step_s
    assert found.certificate.gap >= 0
    assert len(found.losses) == 1 + len(found.runners_up)


def test_a_search_that_is_interrupted_or_out_of_time_tells_its_best():
    problem, heard = asked(topology(pool("a", 2), pool("b", 2, 2.0), bytes_per_s=1e9), workload(8, batch=8)), []

    def interrupt(part, step_s):
        heard.append((part, step_s))
        if len(heard) == 2:
            raise KeyboardInterrupt

    found = search(problem, progress=interrupt)
    assert found.certificate.interrupted
    assert not found.certificate.proven
    assert found.prediction.step_s == heard[-1][1] >= found.bound_s
    assert 0 < heard[0][0] <= heard[1][0] <= 1
    assert search(problem, deadline_s=0.0).certificate.interrupted


def test_more_effort_finds_no_worse_plan():
    problem = asked(topology(pool("a", 2), pool("b", 2, 2.2), bytes_per_s=1e8), workload(7, batch=9))
    assert search(problem, effort=3.0).prediction.step_s <= search(problem).prediction.step_s
