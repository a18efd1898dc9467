"""What a chip is counted to hold that computes units of another pool again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.errors import NoPlanFits, PlanError
from balancer.memory.memory import stage_bytes
from balancer.memory.shadow import shadow_bytes
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.search import search
from tests.unit.balancer.cases import halved, plan, pool, topology, unit, workload

MILLION = 1_000_000
POOLS = topology(pool("a", 2), pool("b", 2))
LARGE = unit(parameters=50 * MILLION, kept=2 * MILLION)
WORK = replace(workload([LARGE, *[unit()] * 7], batch=4), shadow="b")
TWO = plan((2, [("a", 1, (0, 4)), ("b", 1, (4, 8))]), (2, [("a", 1, (0, 5)), ("b", 1, (5, 8))]))


def _completed(written: Plan = TWO) -> Plan:
    return complete(written, Problem(POOLS, WORK))


def test_the_first_stage_of_its_pool_alone_holds_one_unit_at_a_time() -> None:
    two = _completed()
    needs = {place: shadow_bytes(WORK, two, place, 0) for place, _ in two.stages()}
    one = 4 * 50 * MILLION + 2 * MILLION + 4 * MILLION
    assert needs == {(0, 0): 0, (0, 1): one, (1, 0): 0, (1, 1): 0}
    assert shadow_bytes(WORK, two, (0, 1), 7) == one + 7, "beside the sums that it is about to update by"
    assert shadow_bytes(replace(WORK, shadow=None), two, (0, 1), 7) == 0


def test_it_is_there_in_place_of_activations() -> None:
    two, without = _completed(), replace(WORK, shadow=None)
    with_one, plain = (stage_bytes(work, two, 0, 1, "float32") for work in (WORK, without))
    assert plain.shadow == 0
    assert "shadow" not in str(plain)
    assert with_one.shadow > plain.activations + plain.sync
    assert (with_one.activations, with_one.sync) == (0, 0)
    assert with_one.tensors - plain.tensors == with_one.shadow - plain.activations - plain.sync
    assert "shadow" in str(with_one)
    small = replace(workload([unit(kept=10 * MILLION)] * 8, batch=4), shadow="b")
    busy = complete(plan((4, [("b", 1, (0, 4)), ("a", 1, (4, 8))])), Problem(POOLS, small))
    assert stage_bytes(small, busy, 0, 0, "float32") == stage_bytes(replace(small, shadow=None), busy, 0, 0, "float32")


def test_tensors_of_another_precision_lie_there_twice_and_a_tied_one_with_its_later_use() -> None:
    work = replace(halved(replace(WORK, tied=((0, 3),))), shadow="b")
    pools = topology(pool("a", 2, precision="bfloat16"), pool("b", 2))
    two = complete(TWO, Problem(pools, work))
    found = shadow_bytes(work, two, (0, 1), 0)
    assert found >= (50 + 1) * MILLION * (4 + 2), "unit 3 has a million of its own beside the 50 of unit 0"
    alike = complete(TWO, Problem(POOLS, work))
    assert shadow_bytes(work, alike, (0, 1), 0) < (50 + 2) * MILLION * (4 + 1)


def test_a_chip_without_room_for_it_is_refused_with_a_remedy() -> None:
    need = stage_bytes(WORK, _completed(), 0, 1, "float32").total
    small = topology(pool("a", 2), pool("b", 2, gib=(need - MILLION) / 2**30))
    assert complete(TWO, Problem(small, replace(WORK, shadow=None)))
    with pytest.raises(PlanError) as caught:
        complete(TWO, Problem(small, WORK))
    assert caught.value.key == "pipelines[0].stages[1]"
    assert "shadow" in caught.value.rule
    assert "train.shadow.pool" in caught.value.remedy


def test_a_search_finds_a_plan_that_has_something_to_compute_again() -> None:
    """Though the pool is so slow that none would use it."""
    slow = topology(pool("a", 2, speed=100.0), pool("b", 1, speed=0.01))
    without = replace(WORK, shadow=None)
    plain, watched = (search(Problem(slow, work, datasheet_times(slow, work))).plan for work in (without, WORK))
    assert plain.pools() == {"a"}
    assert watched.pools() == {"a", "b"}


def test_a_search_that_finds_room_for_no_shadow_says_so() -> None:
    """One unit is as large as all that a chip of the pool may hold beside its own."""
    huge = replace(workload([unit(parameters=200 * MILLION), *[unit()] * 3], batch=4), shadow="b")
    pools = topology(pool("a", 1), pool("b", 1, gib=0.5))
    asked = Problem(pools, huge, datasheet_times(pools, huge))
    assert search(replace(asked, workload=replace(huge, shadow=None)))
    with pytest.raises(NoPlanFits) as caught:
        search(asked)
    assert (caught.value.key, caught.value.value) == ("train.shadow.pool", "b")
    assert "leave train.shadow out" in caught.value.remedy


@pytest.mark.parametrize(("pools", "rule"), [(("a", "a"), "no stage is there"), (("b", "b"), "all stages are its own")])
def test_a_plan_needs_a_stage_of_the_pool_and_another(pools: tuple[str, str], rule: str) -> None:
    written = plan((4, [(name, 1, ends) for name, ends in zip(pools, ((0, 4), (4, 8)), strict=True)]))
    with pytest.raises(PlanError) as caught:
        complete(written, Problem(POOLS, WORK))
    assert (caught.value.key, rule in caught.value.rule) == ("pipelines", True)
    assert complete(written, Problem(POOLS.only(frozenset(pools)), WORK)), "asked for what a pool would do alone"
