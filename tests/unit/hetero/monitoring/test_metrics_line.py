"""What the recorder writes is what views read: one class says both."""

from __future__ import annotations

import json
from dataclasses import fields

from hetero.monitoring.journal import parse
from hetero.monitoring.metrics_line import LinkFigures, MetricsLine, PoolFigures, ShadowFigures, StageFigures
from hetero.monitoring.record import merge_hosts
from hetero.monitoring.shapes import METRICS_LINE
from hetero.words.step import ShadowErrors, StageTimes
from tests.unit.hetero.monitoring.reports import SHADOW, TOTALS, facts, merged, rank_report


def test_the_recorder_writes_every_key_in_the_order_of_the_class() -> None:
    told = TOTALS | {"eval_loss": 4.5, "shadow": SHADOW}
    a = merged([rank_report("a", 0, totals=told), rank_report("a", 1)])
    line = merge_hosts([a, merged([rank_report("b", 0, stage=1)])], facts(link_ratio=0.3))
    assert list(line) == list(MetricsLine.__annotations__)
    assert {tuple(pool) for pool in line["pools"].values()} == {tuple(PoolFigures.__annotations__)}
    assert {tuple(link) for link in line["links"]} == {tuple(LinkFigures.__annotations__)}
    assert {tuple(stage) for stage in line["stages"]} == {tuple(StageFigures.__annotations__)}
    assert line["shadow"] is not None
    assert list(line["shadow"]) == list(ShadowFigures.__annotations__)
    assert parse(json.dumps(line).encode(), METRICS_LINE) == line


def test_stages_have_the_figures_that_are_told_of_them() -> None:
    assert [field.name for field in fields(StageTimes)] == list(StageFigures.__annotations__)


def test_shadows_have_the_figures_that_are_told_of_them() -> None:
    assert [field.name for field in fields(ShadowErrors)] == list(ShadowFigures.__annotations__)


def test_a_line_of_an_earlier_release_may_lack_all_but_its_step() -> None:
    assert parse(b'{"step": 3}', METRICS_LINE) == {"step": 3}
    assert parse(b'{"time": 3.0}', METRICS_LINE) is None
    assert parse(b'{"step": 3, "tokens": "many"}', METRICS_LINE) is None
