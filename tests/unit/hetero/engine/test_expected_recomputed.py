"""What an emulated chip is told to take for a stage that recomputes."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.completion.completion import complete
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.action import Kind
from bridge.rank import RankId
from hetero.engine.expected import Laps, expected_s, laps
from hetero.engine.step.stage import place_of
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from tests.unit.balancer.cases import pool, topology

DIMS = Dimensions(layers=2, hidden=64, heads=4, kv_heads=2, ffn=176, vocab=300)
CHIPS = topology(pool("a", 1))
WORK = architecture(DIMS).workload(32, 4, "float32")


def _plan(recompute: Any) -> Plan:
    stage = StagePlan(pool="a", units=((0, 6),), recompute=recompute)
    return complete(Plan(pipelines=(PipelinePlan(share=4, stages=(stage,)),)), Problem(CHIPS, WORK))


def _told(recompute: Any) -> tuple[dict[tuple[Kind, int], float], Laps]:
    plan = _plan(recompute)
    place = place_of(plan, RankId("a", 0))
    assert place is not None
    return expected_s(CHIPS, WORK, plan, place, 2.0), laps(CHIPS, WORK, plan, place)


def test_a_backward_is_longer_by_the_products_that_are_made_again() -> None:
    (none, _), (full, _) = _told("none"), _told("full")
    again = sum(unit.under("full").remade_flops for unit in WORK.units)
    assert full[Kind.F, 0] == none[Kind.F, 0]
    assert full[Kind.B, 0] - none[Kind.B, 0] == pytest.approx(2.0 * again / CHIPS.pools[0].flops_per_s, rel=1e-3)


def test_units_that_are_made_again_are_done_later() -> None:
    (_, none), (_, some) = _told("none"), _told({"full": 3})
    assert none[Kind.B, 0, 0] == some[Kind.B, 0, 0] == 1.0
    assert some[Kind.B, 0, 3] < none[Kind.B, 0, 3], "the last units, which are not, have less of the whole"
