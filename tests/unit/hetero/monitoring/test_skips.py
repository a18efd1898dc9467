from __future__ import annotations

import math

import pytest

from hetero.monitoring.skips import Skips
from tests.unit.hetero.monitoring.runs import line


def told(steps: str, skips: Skips | None = None) -> list[tuple[str, int]]:
    """Of steps that were updates (u), skipped (s), had a loss that is no number (n) or too large a loss scale (l)."""
    changes = {"u": {}, "s": {"skipped": True}, "n": {"loss": math.nan}, "l": {"skipped": True, "loss_scale": 2.0}}
    skips = skips or Skips()
    notices = [
        notice for step, what in enumerate(steps) for notice in skips.record(line(step, **changes[what]), lambda: None)
    ]
    return [(notice.kind, notice.facts["step"]) for notice in notices]


@pytest.mark.parametrize("steps", ["uuuu", "suuu", "ssuuussuusu", "ususususus", ""])
def test_single_ones_are_no_row(steps: str) -> None:
    assert told(steps) == []


@pytest.mark.parametrize("steps", ["uusss", "uusnn", "ssuss", "uunnnssssnnnsss"])
def test_a_row_is_told_once(steps: str) -> None:
    assert told(steps) == [("updates_skipped", 4)]


def test_a_loss_scale_that_falls_is_no_row() -> None:
    assert told("llllllllll") == []
    assert told("llllsss") == [("updates_skipped", 6)]


def test_a_lucky_update_ends_no_row() -> None:
    assert told("sssussusss") == [("updates_skipped", 2)]
    assert told("sssuuussss") == [("updates_skipped", 2), ("updates_recovered", 5), ("updates_skipped", 8)]


def test_a_row_goes_on_where_it_stood() -> None:
    assert told("ss", Skips(3, in_row=True)) == []
    assert told("uu", Skips(2, in_row=True)) == [("updates_recovered", 1)]
    assert told("s", Skips(2)) == [("updates_skipped", 0)]


def test_it_names_the_checkpoint_to_go_back_to() -> None:
    for good, shown in (("run@4", "run@4"), (None, "no checkpoint")):
        (notice,) = Skips(2).record(line(7, skipped=True), lambda good=good: good)
        assert notice.facts == {"step": 7, "epoch": 0, "last_good": shown}
