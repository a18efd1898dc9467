from __future__ import annotations

from hetero.monitoring.alerts import Alerts
from hetero.monitoring.notice import Notice
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
