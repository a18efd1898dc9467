"""How long a stage takes that is computed again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.problem import Problem
from balancer.simulate.scenario import Scenario
from balancer.simulate.shadow import shadow_s
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

MILLION = 1_000_000
POOLS = topology(pool("a", 2), pool("b", 2))
WORK = replace(workload([unit(parameters=50 * MILLION), *[unit()] * 7], batch=4), shadow="b")
TWO = plan((2, [("a", 1, (0, 4)), ("b", 1, (4, 8))]), (2, [("b", 1, (0, 5)), ("a", 1, (5, 8))]))


def _seconds(time_scale: float = 1.0, shadow: str | None = "b") -> float:
    work = replace(WORK, shadow=shadow)
    asked = Problem(POOLS, work, datasheet_times(POOLS, work))
    return shadow_s(Scenario(complete(TWO, asked), asked, time_scale))


def test_is_that_of_the_longest_stage_whose_units_cross_and_are_computed_one_by_one() -> None:
    link, times = POOLS.link("a", "b"), datasheet_times(POOLS, WORK)
    parameters = 4 * sum(one.parameters for one in WORK.units[:4])
    crossing = 5 * link.latency_s + (parameters + 2 * 5 * WORK.units[0].boundary_bytes) / link.bytes_per_s
    alone = times.lookup("b", 1, WORK.units[0].kind)
    computing = 4 * (alone.forward_s + alone.backward_s - alone.weight_s + alone.hidden_s)
    assert _seconds() == pytest.approx(crossing + computing)
    assert _seconds(time_scale=7.0) == pytest.approx(7 * _seconds())


def test_is_none_where_nothing_is_computed_again() -> None:
    assert _seconds(shadow=None) == 0.0
    assert _seconds(shadow="c") == 0.0, "the plan has no stage of it"
