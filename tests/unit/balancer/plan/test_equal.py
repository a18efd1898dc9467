from __future__ import annotations

import pytest

from balancer.completion.completion import complete
from balancer.plan.equal import alike, equal_pipelines, numbered
from balancer.plan.plan import Plan
from balancer.problem import Problem
from tests.unit.balancer.cases import plan, pool, topology, workload


def test_pipelines_on_other_chips_that_own_other_units_are_equal():
    one, other = [("a", 1, (0, 4)), ("a", 1, (4, 8))], [("a", 1, (0, 3)), ("a", 1, (3, 8))]
    written = plan((2, one), (2, other), (2, one), (2, one))
    completed = complete(written, Problem(topology(pool("a", 8)), workload(8, batch=8)))
    assert equal_pipelines(completed) == [(0, 2, 3), (1,)]


def test_another_share_is_another_pipeline():
    stages = [("a", 1, (0, 8))]
    assert equal_pipelines(plan((3, stages), (3, stages), (2, stages))) == [(0, 1), (2,)]


@pytest.mark.parametrize(
    "asked",
    [
        {"recompute": "full"},
        {"sequence_parallel": True},
        {"tp_slices": 4},
        {"optimizer": "host"},
        {"experts": "spread"},
    ],
)
def test_another_strategy_is_another_pipeline(asked):
    plain = plan((2, [("a", 2, (0, 8))])).pipelines[0]
    other = plain.model_copy(update={"stages": (plain.stages[0].model_copy(update=asked),)})
    assert equal_pipelines(Plan(pipelines=(plain, other, plain))) == [(0, 2), (1,)]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3], "3"),
        (range(8), "0-7 (x 8)"),
        ([0, 1, 2, 5, 7], "0-2, 5, 7 (x 5)"),
        (range(0, 100, 2), "0, 2, 4, 6, ... (x 50)"),
    ],
)
def test_numbers_are_short(numbers, text):
    assert numbered(numbers) == text


def test_alike_keeps_the_order_of_the_first_of_each():
    assert alike("abcab") == [(0, 3), (1, 4), (2,)]
