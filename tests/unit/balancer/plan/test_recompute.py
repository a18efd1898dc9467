"""What a stage recomputes: as a plan says it, as it is refused, and as it is priced."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from balancer.completion.completion import complete
from balancer.cost.stage_times import stage_time, stage_unit_time
from balancer.cost.times import datasheet_times
from balancer.cost.workload import TpBytes
from balancer.errors import PlanError
from balancer.memory.memory import stage_bytes
from balancer.plan.plan import Plan, StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.simulate.simulate import simulate
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

CHIPS = topology(pool("a", 2))
PLAIN = unit(kept=8_000_000)
THINNER = replace(PLAIN, activation_bytes=4_000_000, remade=TpBytes(4_000_000))
THINNEST = replace(
    PLAIN, activation_bytes=1_000_000, remade=TpBytes(7_000_000), remade_flops=PLAIN.forward_flops * 3 / 4
)
WORK = workload([replace(PLAIN, recomputed={"selective": THINNER, "full": THINNEST})] * 8, batch=8)


def _read(recompute: Any) -> Plan:
    stages = [{"pool": "a", "units": [[0, 2], [5, 8]], "recompute": recompute}, {"pool": "a", "units": [2, 5]}]
    return Plan.from_json(json.dumps({"pipelines": [{"share": 8, "stages": stages}]}))


def _stage(recompute: Any) -> StagePlan:
    return _read(recompute).pipelines[0].stages[0]


@pytest.mark.parametrize("word", ["none", "selective", "full"])
def test_a_word_is_for_all_units(word: str) -> None:
    assert [_stage(word).recompute_of(u) for u in (0, 1, 5, 6, 7)] == [word] * 5


def test_numbers_count_from_the_stages_first_unit_over_its_chunks() -> None:
    told = [_stage({"full": 1, "selective": 3}).recompute_of(u) for u in (0, 1, 5, 6, 7)]
    assert told == ["full", "selective", "selective", "selective", "none"]


@pytest.mark.parametrize("recompute", ["none", "full", {"full": 1, "selective": 3}])
def test_json_says_it_where_it_is_not_the_default(recompute: Any) -> None:
    written = _read(recompute)
    assert Plan.from_json(written.to_json()) == written
    assert ("recompute" in written.to_json()) == (recompute != "none")


@pytest.mark.parametrize("recompute", ["ful", {"fll": 1}, {"full": -1}, {"full": "many"}, 3, None])
def test_anything_else_is_refused_with_what_it_may_be(recompute: Any) -> None:
    with pytest.raises(PlanError) as error:
        _read(recompute)
    assert (error.value.key, error.value.value) == ("pipelines[0].stages[0].recompute", recompute)
    assert error.value.rule.startswith("is one of none, selective, full, or numbers")


def test_more_units_than_the_stage_has_are_refused() -> None:
    with pytest.raises(PlanError) as error:
        complete(_read({"full": 4, "selective": 2}), Problem(CHIPS, WORK))
    assert error.value.key == "pipelines[0].stages[0].recompute"
    assert "counts 6 units, and the stage has 5" in error.value.rule
    assert "5 in all" in error.value.remedy


def _whole(recompute: str | RecomputedUnits) -> Plan:
    (pipeline,) = plan((8, [("a", 1, (0, 8))])).pipelines
    stage = pipeline.stages[0].model_copy(update={"recompute": recompute})
    return Plan(pipelines=(pipeline.model_copy(update={"stages": (stage,)}),))


def _bytes(recompute: str | RecomputedUnits) -> int:
    return stage_bytes(WORK, complete(_whole(recompute), Problem(CHIPS, WORK)), 0, 0, "bfloat16").activations


def test_a_chip_holds_what_is_kept_and_one_unit_made_again() -> None:
    none, selective, full = (_bytes(word) for word in ("none", "selective", "full"))
    assert none - selective == (8 - 1) * 4_000_000
    assert none - full == (8 - 1) * 7_000_000
    assert none - _bytes(RecomputedUnits(full=2, selective=3)) == 2 * 7_000_000 + 3 * 4_000_000


def test_a_plan_that_does_not_fit_may_fit_where_less_is_kept() -> None:
    chips = topology(replace(CHIPS.pools[0], memory_bytes=180_000_000))
    with pytest.raises(PlanError) as error:
        complete(_whole("none"), Problem(chips, WORK))
    assert "recompute: full" in error.value.remedy
    complete(_whole("full"), Problem(chips, WORK))


def test_full_takes_its_products_again_and_selective_the_traffic() -> None:
    times, slow = datasheet_times(CHIPS, WORK), replace(CHIPS.pools[0].chip, memory_bytes_per_s=1e9)
    chips = topology(replace(CHIPS.pools[0], chip=slow))
    plain, thinner, thinnest = (
        stage_unit_time(times, chips, WORK, _stage(r), 5) for r in ("none", "selective", "full")
    )
    assert thinner.backward_s == pytest.approx(plain.backward_s + 2 * 4e6 / 1e9)
    assert thinnest.backward_s == pytest.approx(plain.backward_s + 0.75 * plain.forward_s)
    assert {(time.forward_s, time.weight_s) for time in (thinner, thinnest)} == {(plain.forward_s, plain.weight_s)}
    both = stage_time(times, chips, WORK, _stage({"full": 3}), (1, 5, 6))
    assert both.backward_s == pytest.approx(2 * thinnest.backward_s + plain.backward_s)


@pytest.mark.parametrize(("rows", "gathered"), [(False, 0.0), (True, 0.5)])
def test_products_are_made_again_without_their_collectives(rows: bool, gathered: float) -> None:
    """But for the gathering of rows, on a group whose all-reduce takes as long as its products."""
    chips = topology(pool("a", 2, interconnect=2e7))
    work = workload([replace(unit, boundary_bytes=1_000_000) for unit in WORK.units])
    times, asked = datasheet_times(chips, work), StagePlan(pool="a", tp=2, units=((0, 8),), sequence_parallel=rows)
    plain, full = (
        stage_unit_time(times, chips, work, asked.model_copy(update={"recompute": word}), 0)
        for word in ("none", "full")
    )
    assert plain.forward_s == pytest.approx(0.05 + 0.05)
    assert full.backward_s - plain.backward_s == pytest.approx((0.75 + gathered) * 0.05)


def test_the_simulator_takes_what_the_stage_takes() -> None:
    problem = Problem(CHIPS, WORK, datasheet_times(CHIPS, WORK))
    none, full = (simulate(complete(_read(recompute), problem), problem) for recompute in ("none", "full"))
    assert full.busy_s[0, 0] == pytest.approx(none.busy_s[0, 0] * 3.75 / 3)
    assert full.busy_s[0, 1] == pytest.approx(none.busy_s[0, 1])
