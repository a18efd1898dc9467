"""The search: what it finds, what it may not do, and what it says when nothing fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import Times, UnitTime, datasheet_times
from balancer.errors import NoPlanFits, PlanError
from balancer.options import CHOICES, BalanceOptions
from balancer.problem import Problem
from balancer.search.search import search
from balancer.search.shapes import Shapes
from balancer.search.space import LayoutSpace
from balancer.search.strategies import Strategy, strategies
from balancer.simulate.simulate import simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

GIB = 2**30
PLAIN = BalanceOptions(choose=())


def find(chips, work, **arguments):
    return search(Problem(chips, work, datasheet_times(chips, work), **arguments))


def stages(found):
    return [[(s.pool, s.tp, *s.units) for s in p.stages] for p in found.plan.pipelines]


@st.composite
def jobs(draw, most_pools=2):
    """Pools of any speed, count and memory with room for the model, over links of any kind."""
    pools = [
        pool(f"p{i}", draw(st.sampled_from([1, 2, 4])), draw(st.floats(0.3, 3.0)), interconnect=1e8)
        for i in range(draw(st.integers(1, most_pools)))
    ]
    link = {"bytes_per_s": draw(st.sampled_from([1e6, 1e8, 1e12])), "latency_s": draw(st.sampled_from([0.0, 0.02]))}
    units = [unit(f"k{u}", draw(st.floats(20.0, 200.0))) for u in range(draw(st.integers(2, 8)))]
    return pools, link, workload(units, draw(st.integers(4, 16)))


@given(job=jobs())
@out_of_100(25)
def test_what_it_finds_is_legal_predicted_truly_and_best_of_all_it_tells(job):
    pools, link, work = job
    chips = topology(*pools, **link)
    found = find(chips, work)
    assert complete(found.plan, Problem(chips, work)) == found.plan
    assert simulate(found.plan, Problem(chips, work, datasheet_times(chips, work))).step_s == found.prediction.step_s
    slower = [prediction.step_s for _, prediction, _ in found.runners_up]
    assert [found.prediction.step_s, *slower] == sorted([found.prediction.step_s, *slower])
    assert all("slower" in why for *_, why in found.runners_up)


@pytest.mark.slow
@given(job=jobs(), count=st.sampled_from([1, 2, 4]), faster=st.floats(1.0, 4.0))
@out_of_100(12)
def test_a_faster_pool_more_never_makes_the_best_step_longer(job, count, faster):
    pools, link, work = job
    more = pool("more", count, faster * max(p.flops_per_s for p in pools) / 1e12, interconnect=1e8)
    before, after = find(topology(*pools, **link), work), find(topology(*pools, more, **link), work)
    assert after.bound_s <= after.prediction.step_s <= before.prediction.step_s


@pytest.mark.slow
def test_where_nothing_is_idle_at_the_end_later_stages_get_less():
    """No cut near an even one is faster, in any order of the pools."""
    speeds = {"a": 1.18, "b": 1.19, "c": 0.99}
    chips = topology(*(pool(name, 1, speed) for name, speed in speeds.items()), bytes_per_s=1e9, latency_s=0.02)
    units = [unit("head", 13.0), *(unit("attention", 87.0), unit("mlp", 26.0)) * 6]
    work = workload(units, 12, parameters=10**8)
    asked = Problem(
        chips, work, datasheet_times(chips, work), options=BalanceOptions(schedule="zero-bubble", choose=())
    )
    near = [
        plan((12, [(a, 1, (0, i)), (b, 1, (i, j)), (c, 1, (j, 13))]), schedule="zero-bubble")
        for a, b, c in permutations(speeds)
        for i, j in product((3, 4, 5, 6), (8, 9, 10))
    ]
    assert search(asked).prediction.step_s <= min(simulate(complete(one, asked), asked).step_s for one in near)


@pytest.mark.slow
def test_one_pipeline_without_a_bubble_is_found_where_gradients_take_long_to_cross():
    """Three pools of a chip each, whose 1F1B plans are pipelines of their own."""
    pools = [pool(name, 1, speed) for name, speed in (("a", 1.0), ("b", 0.96), ("c", 1.04))]
    chips = topology(*pools, bytes_per_s=1.5e8, latency_s=0.001)
    work = workload(6, 12, parameters=10**8, boundary=10**5)
    found = find(chips, work, options=BalanceOptions(choose=("schedule",)))
    by_name = {
        name: find(chips, work, options=BalanceOptions(schedule=name, choose=())) for name in ("1f1b", "zero-bubble")
    }
    assert len(found.plan.pipelines) == 1
    assert found.prediction.step_s <= min(one.prediction.step_s for one in by_name.values())


@pytest.mark.slow
def test_one_tp_for_all_pools_is_no_faster():
    pools = [pool(f"p{i}", 4, speed, interconnect=1e8) for i, speed in enumerate((1.0, 1.5))]
    work = workload(12, 16)
    found = find(topology(*pools, bytes_per_s=1e8), work)
    for tp in (1, 2, 4):
        fixed = find(topology(*(replace(one, tp=tp) for one in pools), bytes_per_s=1e8), work)
        assert found.prediction.step_s <= fixed.prediction.step_s


def test_strategies_that_a_model_refuses_are_not_proposed():
    refused = dict.fromkeys(("optimizer", "sequence_parallel", "tp_slices"), "its modules are its own")
    work = replace(workload(8, 8, kept=10**9), refused=refused)
    work = replace(work, units=tuple(replace(one, boundary_bytes=10**6) for one in work.units))
    chips = topology(pool("a", 4, gib=6.0))
    asked = Problem(chips, work, datasheet_times(chips, work), options=BalanceOptions(choose=CHOICES))
    assert strategies(asked, 2) == [Strategy()]
    for pipeline in search(asked).plan.pipelines:
        for stage in pipeline.stages:
            assert set(stage.strategies()) <= {"recompute"}


@given(
    speeds=st.lists(st.floats(0.3, 3.0), min_size=2, max_size=2),
    gflops=st.lists(st.floats(20.0, 200.0), min_size=2, max_size=6),
    batch=st.integers(2, 8),
    latency_s=st.sampled_from([0.0, 0.1]),
)
@example(speeds=[1.125, 2.409], gflops=[200.0, 65.0, 155.0, 120.0, 200.0, 131.0], batch=2, latency_s=0.0)  # 1.15
@out_of_100(25)
def test_close_to_brute_force_over_cuts_and_shares(speeds, gflops, batch, latency_s):
    """A cut is judged by its slowest stage alone, so filling and draining may take a period more than they need to."""
    n = len(gflops)
    chips = topology(pool("a", 1, speeds[0]), pool("b", 1, speeds[1]), latency_s=latency_s)
    work = workload([unit(f"k{u}", each) for u, each in enumerate(gflops)], batch)
    one = [[(x, 1, (0, c)), (y, 1, (c, n))] for x, y in ("ab", "ba") for c in range(1, n)]
    every = [plan((batch, shape)) for shape in (*one, [("a", 1, (0, n))], [("b", 1, (0, n))])]
    every += [plan((m, [("a", 1, (0, n))]), (batch - m, [("b", 1, (0, n))])) for m in range(1, batch)]
    times = datasheet_times(chips, work)
    best = min(simulate(complete(p, Problem(chips, work)), Problem(chips, work, times)).step_s for p in every)
    assert find(chips, work).prediction.step_s <= (1 + 1 / batch) * best


@given(count=st.sampled_from([1, 2, 4]), per_stage=st.integers(1, 4))
@out_of_100(10)
def test_equal_chips_get_equal_work(count, per_stage):
    found = find(topology(pool("a", count)), workload(count * per_stage, batch=8 * count))
    sizes = {b - a for pipeline in stages(found) for _, _, (a, b) in pipeline}
    assert len(sizes) == 1
    assert len({p.share for p in found.plan.pipelines}) == 1
    assert found.prediction.efficiency_vs_ideal > 0.75


def test_faster_chips_get_more():
    work = workload(12, batch=12)
    found = find(topology(pool("slow", 1, 1.0), pool("fast", 1, 3.0)), work)
    assert [p.share for p in sorted(found.plan.pipelines, key=lambda p: p.stages[0].pool)] == [9, 3]
    heavy = workload(12, batch=40, parameters=10**9)  # too much to send its gradients around
    one_each = topology(pool("slow", 1, 1.0, gib=600), pool("fast", 1, 3.0, gib=600), bytes_per_s=1e10)
    [pipeline] = stages(find(one_each, heavy))
    assert {name: b - a for name, _, (a, b) in pipeline} == {"slow": 3, "fast": 9}


def test_no_bound_forgets_what_each_pool_is_fast_at():
    """Each pool takes 12 s for the model, 3 s of them for the unit that it has in the best plan."""
    fast, slow = UnitTime(1.0, 2.0), UnitTime(3.0, 6.0)
    times = Times({("a", 1, "x"): fast, ("a", 1, "y"): slow, ("b", 1, "x"): slow, ("b", 1, "y"): fast})
    asked = Problem(topology(pool("a", 1), pool("b", 1)), workload([unit("x"), unit("y")], batch=16), times)
    found = search(asked)
    assert stages(found) == [[("a", 1, (0, 1)), ("b", 1, (1, 2))]]
    assert Shapes(asked, LayoutSpace(asked)).bound_s([("a", "b")]) <= found.prediction.step_s < 16 * 12 / 2


def test_a_pool_behind_a_hopeless_link_is_left_idle_and_that_is_said():
    work = workload(8, batch=8)
    found = find(topology(pool("near", 2), pool("far", 1, 0.2), bytes_per_s=1e5, latency_s=5.0), work)
    assert {name for pipeline in stages(found) for name, *_ in pipeline} == {"near"}
    [idle] = found.idle
    assert (idle.pool, idle.chips, idle.count) == ("far", 1, 1)
    assert "the best plan with it takes" in idle.why
    assert not find(topology(pool("near", 2), pool("far", 1)), work).idle


def test_chips_that_a_pool_s_tp_leaves_over_are_told():
    [idle] = find(topology(pool("odd", 3, tp=2), pool("even", 2)), workload(8, batch=8)).idle
    why = "tp 2 does not divide 3; use a tp of 1 or 3 there, or a count of 2"
    assert str(idle) == f"1 of 3 chips of pool odd idle: {why}"


@pytest.mark.parametrize(
    ("left_out", "why", "remedy"),
    [
        (pool("b", 1, gib=0.001), "no plan with it fits the memory", "chips with more memory"),
        (pool("b", 1, tp=2), "it has no division into stages", "set pools.b.tp to auto, or raise train.global_batch"),
    ],
)
def test_a_pool_that_no_plan_can_use_is_told_with_the_reason(left_out, why, remedy):
    [idle] = find(topology(pool("a", 1), left_out), workload(2, batch=2)).idle
    assert idle.why.startswith(why)
    assert remedy in idle.remedy


def test_a_slow_hop_deepens_the_warmup_where_memory_allows():
    """Facts: with M = 32 and a hop of one forward, RTT + 1 takes 1F1B from 1.43 to 1.12 of the busy time."""
    chips = topology(*(pool(f"p{i}", 1, gib=0.5) for i in range(2)), latency_s=0.8)
    heavy = {"parameters": 10_000_000, "gflops": 200, "boundary": 0}
    found = find(chips, workload(4, batch=32, **heavy))
    deep = [p for p in (found.plan, *(plan for plan, *_ in found.runners_up)) if len(p.pipelines) == 1]
    assert any(p.pipelines[0].warmups() > (2, 1) for p in deep)


def test_constraints_on_tp_are_kept():
    chips = topology(pool("a", 4, tp=4), pool("b", 4))
    found = find(chips, workload(), legal_tp=lambda tp: "too many" if tp == 2 else None)
    tps = {
        (name, tp)
        for p, *_ in [(found.plan,), *found.runners_up]
        for q in p.pipelines
        for name, tp in ((s.pool, s.tp) for s in q.stages)
    }
    assert tps <= {("a", 4), ("b", 1), ("b", 4)}


def test_gpipe_and_micro_batches_are_kept():
    found = find(topology(pool("a", 2)), workload(), options=BalanceOptions(schedule="gpipe"), micro_batch=4)
    assert found.plan.schedule == "gpipe"
    assert {p.micro_batch for p in found.plan.pipelines} == {4}
    with pytest.raises(PlanError) as error:
        find(topology(pool("a", 2)), workload(), micro_batch=3)
    assert (error.value.key, error.value.value) == ("train.micro_batch", 3)


def test_legal_cuts_are_kept():
    found = find(topology(pool("a", 4)), workload(9, cuts=(0, 4, 8)))
    assert {a for pipeline in stages(found) for _, _, (a, _) in pipeline} <= {0, 4, 8}


def test_what_only_memory_can_cut_is_found():
    """By speed the fast chip has four fifths of the model, for which it has no room; nor has the other one for all."""
    work = workload(24, batch=8, parameters=25_000_000)  # 9.6 GB of weights, gradients and moments
    chips = topology(pool("large", 1, gib=9.0), pool("fast", 1, 4.0, gib=2.0))
    found = find(chips, work, options=PLAIN)
    assert {name for pipeline in stages(found) for name, *_ in pipeline} == {"large", "fast"}


def no_fit(chips, work, **arguments):
    with pytest.raises(NoPlanFits) as error:
        find(chips, work, **arguments)
    return error.value


def test_no_plan_fits_names_need_limit_and_a_change_that_fits():
    work = workload(4, batch=8, parameters=100_000_000, gflops=100)  # 6.4 GB of weights, gradients and moments
    chips = topology(pool("a", 2, gib=2.0))
    error = no_fit(chips, work, options=PLAIN)
    assert error.limit_bytes == 2 * GIB < error.need_bytes
    assert error.remedy == "raise pools.a.count to 4"
    in_hosts = find(chips, work)  # where it may, it does what the smallest change would do
    assert {stage.optimizer for pipeline in in_hosts.plan.pipelines for stage in pipeline.stages} == {"host"}
    find(topology(pool("a", 4, gib=2.0)), work)
    enough = replace(chips.pools[0], memory_bytes=round(error.need_bytes * 1.01))
    find(topology(enough), work)


def test_a_chip_whose_communicators_alone_do_not_fit_is_told_what_it_needs():
    """One of a GiB, for the tensor-parallel group; for a copy of the model on the other chips it takes another."""
    chips, work = topology(pool("a", 4, gib=1.0, tp=2)), workload(4, batch=8, cuts=(0,))
    chip = replace(chips.pools[0].chip, communicator_bytes=GIB)
    error = no_fit(topology(replace(chips.pools[0], chip=chip)), work)
    assert GIB < error.need_bytes < 1.1 * GIB
    find(topology(replace(chips.pools[0], chip=chip, memory_bytes=round(error.need_bytes * 1.01))), work)


def test_smaller_micro_batches_are_the_smallest_change():
    work = workload(4, batch=8, kept=GIB)
    error = no_fit(topology(pool("a", 1, gib=12.0)), work, micro_batch=4)
    assert error.remedy == "set train.micro_batch to 2"
    find(topology(pool("a", 1, gib=12.0)), work, micro_batch=2)


def test_chips_that_no_group_can_use_on_their_host_are_left_over():
    found = find(topology(pool("odd", 6, tp=2, hosts=2)), workload())
    assert sum(len(p.stages) for p in found.plan.pipelines) == 2


def test_no_legal_division_is_an_error_of_its_own():
    error = no_fit(topology(pool("a", 3, tp=3)), workload(), legal_tp=lambda tp: "8 heads" if tp == 3 else None)
    assert error.key == "pools"
    assert error.need_bytes == 0


@pytest.mark.slow
def test_three_pools_of_eight_chips_take_about_a_second():
    chips = topology(*(pool(f"p{i}", 8, 1.0 + i, interconnect=1e11) for i in range(3)), bytes_per_s=1e10)
    work = workload(66, batch=32, gflops=1000)
    began = process_time()
    found = find(chips, work)
    assert process_time() - began < 4  # usually 1
    assert len({s.pool for p in found.plan.pipelines for s in p.stages}) == 3
