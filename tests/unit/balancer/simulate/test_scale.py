"""Plans by a rule at scale, and the page about them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.scale import BATCH, CHIPS, problem
from benchmarks.scale_page import Point, page, svg
from benchmarks.scale_plans import ruled


@pytest.mark.slow
def test_a_rule_s_plan_takes_all_chips_and_the_whole_batch() -> None:
    asked = problem("7B", 256, 100)
    step = ruled(asked, 8)
    assert step is not None
    assert sum(stage.tp for _, stage in step.plan.stages()) == 256
    assert sum(pipeline.share for pipeline in step.plan.pipelines) == BATCH[256]
    assert 0.3 < step.efficiency_vs_ideal < 1
    slower = ruled(problem("7B", 256, 25), 8)
    assert slower is not None
    assert slower.step_s > step.step_s
    points = [Point("7B", 256, 25, slower, (1e5,) * len(CHIPS)), Point("7B", 1024, 25, None, (0.0,) * len(CHIPS))]
    rows = [line for line in page(points, "plot.svg").splitlines() if line.startswith("| 7B")]
    assert rows[0].split(" | ")[4] == f"{slower.tokens_per_s / 3e5:.3f}"
    assert "none fits" in rows[1]
    assert len(ElementTree.fromstring(svg(points)).findall(".//{*}circle")) == 2
