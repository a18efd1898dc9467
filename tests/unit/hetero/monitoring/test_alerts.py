from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest

from hetero.monitoring.alerts import Alerts
from hetero.monitoring.notice import Notice
from tests.unit.hetero.monitoring.reports import SHADOW
from tests.unit.hetero.monitoring.runs import line


def _alerts(slowness: list[float], epochs: list[int] | None = None) -> list[Notice]:
    alerts = Alerts()
    lines = [line(step, slow, epoch=(epochs or [0] * 99)[step]) for step, slow in enumerate(slowness)]
    return [notice for one in lines for notice in alerts.record(one)]


def test_a_steady_run_has_none() -> None:
    assert _alerts([1.0 + 0.04 * (step % 3) for step in range(60)]) == []


def test_a_slowed_pool_is_named_within_three_steps_with_its_slowest_rank() -> None:
    pool, rank = _alerts([1.0] * 10 + [1.5] * 3)
    assert (pool.kind, pool.facts["pool"], pool.facts["step"]) == ("pool_slow", "a", 11)
    assert pool.facts["ratio"] < 0.9
    assert (rank.kind, rank.facts["rank"], rank.facts["host"]) == ("rank_slow", "a:1", "a@0")
    assert rank.facts["ratio"] > 1.1
    assert pool.facts["capacity_tokens_per_s"] < pool.facts["median_tokens_per_s"]


def test_it_is_said_once_and_slowness_does_not_become_the_norm() -> None:
    notices = _alerts([1.0] * 10 + [1.5] * 80 + [1.0])
    assert [(notice.kind, notice.facts["step"]) for notice in notices] == [
        ("pool_slow", 11), ("rank_slow", 11), ("pool_recovered", 90), ("rank_recovered", 90),
    ]  # fmt: skip


def test_a_single_slow_step_is_no_alert() -> None:
    assert _alerts(([1.0] * 8 + [2.0]) * 4) == []


def test_too_few_steps_make_no_norm() -> None:
    assert _alerts([3.0, 2.0, 1.0, 1.0, 1.0]) == []


def test_another_plan_begins_anew() -> None:
    assert _alerts([1.0] * 10 + [1.5] * 10, [0] * 10 + [1] * 10) == []


@pytest.mark.parametrize(
    ("value", "gradient", "told"),
    [
        (1e-5, 1e-5, False), (2e-5, 0.0, True), (0.0, 2e-5, True), (math.inf, 0.0, True), (0.0, None, False),
        (2e-5, None, True),
    ],
)  # fmt: skip
def test_drift_is_what_is_beyond_the_tolerance(value: float, gradient: float | None, told: bool) -> None:
    found = asdict(replace(SHADOW, value=value, gradient=gradient))
    notices = Alerts().record(line(7, shadow={key: one for key, one in found.items() if one is not None}))
    assert [notice.kind for notice in notices] == ["drift"] * told
    for notice in notices:
        assert (notice.pool, notice.step, notice.epoch) == ("b", 7, 0)
        assert notice.facts | {"pool": "b"} == notice.facts
        assert (notice.data["stage"], notice.data["unit"], notice.data["unit_kind"]) == (1, 3, "attention")
        assert (notice.data["value"], notice.data["tolerance"]) == (value, 1e-5)


def test_drift_that_stays_is_told_each_time() -> None:
    alerts, found = Alerts(), asdict(replace(SHADOW, value=1.0))
    assert [notice.kind for step in range(3) for notice in alerts.record(line(step, shadow=found))] == ["drift"] * 3
