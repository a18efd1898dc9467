"""A chip that holds other than its plan says is told of once for its stage."""

from __future__ import annotations

from typing import Any

import pytest

from hetero.monitoring.memory import MemoryCheck
from hetero.monitoring.progress import event_text, stays

GIB = 2**30


def said(held: float, pipeline: int = 0, stage: int = 1) -> dict[str, Any]:
    bytes_ = {"held_bytes": round(held * GIB), "peak_bytes": 20 * GIB, "limit_bytes": 60 * GIB}
    return {"pipeline": pipeline, "stage": stage, **bytes_}


@pytest.mark.parametrize(("held", "ratio"), [(41, None), (39, None), (43, 1.075), (37, 0.925)])
def test_five_percent_more_or_less_than_the_plan_says_is_told(held: float, ratio: float | None) -> None:
    found = MemoryCheck(lambda pipeline, stage: 40 * GIB).used("ascend", said(held), {"step": 1, "rank": "ascend:3"})
    assert [notice.kind for notice in found] == ["memory_differs"] * (ratio is not None)
    for notice in found:
        assert notice.facts["ratio"] == pytest.approx(ratio)
        assert (notice.facts["pool"], notice.facts["stage"], notice.facts["rank"]) == ("ascend", 1, "ascend:3")
        assert notice.facts["predicted_bytes"] == 40 * GIB
        assert notice.facts["measured_bytes"] == held * GIB


@pytest.mark.parametrize(("pipeline", "stage"), [(0, 2), (1, 0), (0, -1), (-1, 0)])
def test_a_stage_that_no_plan_has_is_passed_over(pipeline: int, stage: int) -> None:
    """A rank said so, and ends nobody's run with that."""
    predicted = [[40 * GIB, 40 * GIB]]
    assert not MemoryCheck(lambda p, s: predicted[p][s]).used("ascend", said(50, pipeline, stage), {})


def test_what_is_little_to_the_chip_is_not_told() -> None:
    assert not MemoryCheck(lambda pipeline, stage: GIB).used("ascend", said(1.5), {})


def test_equal_stages_of_many_pipelines_are_told_once_and_each_way_by_itself() -> None:
    check = MemoryCheck(lambda pipeline, stage: 40 * GIB)
    told = [said(50, p, s) for p in range(3) for s in range(2)] + [said(30, 3, 1)]
    found = [notice for one in told for notice in check.used("ascend", one, {})]
    assert [(notice.facts["pipeline"], notice.facts["stage"]) for notice in found] == [(0, 0), (0, 1), (3, 1)]
    assert check.used("kunlun", said(50), {}), "another pool speaks for itself"


def test_more_than_was_said_stays_on_the_screen() -> None:
    for held, expected in ((50, True), (30, False)):
        [notice] = MemoryCheck(lambda pipeline, stage: 40 * GIB).used("ascend", said(held), {})
        event = {"kind": notice.kind, "pool": "ascend", "rank": None, "step": 1, "data": dict(notice.facts)}
        assert stays(event) == expected
        assert f"predicted 40.00 GiB, measured {held}.00 GiB" in event_text(event)
