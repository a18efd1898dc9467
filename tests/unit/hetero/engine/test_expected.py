"""What an emulated chip is told to take, for backwards in one action and in two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.completion.completion import complete
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.schedule.action import Kind
from bridge.layout.axes import Axes
from hetero.engine.expected import Laps, expected_s, laps
from hetero.engine.step.stage import RankPlace
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

CHIPS = topology(pool("a", 1), pool("b", 1))
HEAD = replace(unit("head", 1000), weight_flops=0.0)
WORK = workload([unit("x", 1000), unit("y", 500), unit("x", 1000), HEAD], batch=4)
LAST = RankPlace(0, 1, 0, (), Axes.of(tp=1))


def completed(schedule: str) -> Plan:
    return complete(plan((4, [("a", 1, (0, 1)), ("b", 1, (1, 4))]), schedule=schedule), Problem(CHIPS, WORK))


def test_both_actions_of_a_backward_take_as_long_as_the_whole() -> None:
    found = expected_s(CHIPS, WORK, completed("zero-bubble"), LAST, time_scale=10)
    assert found[Kind.F, 1] == pytest.approx(25)
    assert found[Kind.B, 1] == pytest.approx(50)
    assert found[Kind.W, 1] == pytest.approx(0.8 * 15)
    assert found[Kind.I, 1] == pytest.approx(50 - 0.8 * 15)


def test_units_are_done_in_the_midst_of_the_action_that_makes_their_last_gradients() -> None:
    """Where that makes gradients of weights alone, a head without any is done when it begins."""
    whole, two = (laps(CHIPS, WORK, completed(name), LAST) for name in ("1f1b", "zero-bubble"))
    assert _of(Kind.B, whole) == pytest.approx({3: 20 / 50, 2: 40 / 50, 1: 1.0})
    assert _of(Kind.W, two) == pytest.approx({3: 0.0, 2: 10 / 15, 1: 1.0})


@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_a_forward_comes_to_each_unit_after_those_before(schedule: str) -> None:
    """Also where a backward is two actions: a head has a forward, though it has no weights' gradients."""
    found = laps(CHIPS, WORK, completed(schedule), LAST)
    assert _of(Kind.F, found) == pytest.approx({1: 0.0, 2: 5 / 25, 3: 15 / 25})


def _of(kind: Kind, found: Laps) -> dict[int, float]:
    """By unit of the last chunk."""
    return {unit: part for (one, chunk, unit), part in found.items() if (one, chunk) == (kind, 1)}
