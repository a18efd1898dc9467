"""A run's figures as Ray's metrics: its own objects check names and labels. tests/e2e/test_cluster.py scrapes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ray.util.metrics import Gauge

from hetero.cluster.onray.metrics import RayMetrics, logger
from tests.unit.hetero.monitoring.runs import line, tracked


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    handler, records = logging.Handler(), []
    handler.emit = records.append
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_every_figure_of_a_line_is_taken(monkeypatch: pytest.MonkeyPatch, told: list[logging.LogRecord]) -> None:
    taken: dict[tuple[str, str], float] = {}
    original = Gauge.set

    def note(self: Gauge, value: float, tags: dict[str, str]) -> None:
        taken[self.info["name"], tags.get("pool", "")] = value
        original(self, value, tags)

    monkeypatch.setattr(Gauge, "set", note)
    record = line(0)
    RayMetrics(tracked()).record(record)
    assert not told
    assert taken["hetero_tokens_per_second", ""] == record["tokens_per_s"]
    for name, pool in record["pools"].items():
        assert taken["hetero_pool_capacity_tokens_per_second", name] == pool["capacity_tokens_per_s"]


def test_what_ray_does_not_take_is_told_once(told: list[logging.LogRecord]) -> None:
    metrics = RayMetrics(tracked())
    wrong = line(0) | {"pools": {"unknown": {}}}
    for _ in range(2):
        metrics.record(wrong)
    assert len(told) == 1
