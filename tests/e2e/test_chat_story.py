"""docs/fine-tuning.md as it stands: a model's directory and chats in, a directory that gives the taught answers out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hetero.monitoring.journal import METRICS, read
from tests.architecture import markdown
from tests.architecture.tree import ROOT
from tests.e2e.page import Done, checkout, ends_as_said, lines, run

PAGE = markdown.read(ROOT / "docs" / "fine-tuning.md")
STEPS, RESUMED_AT = 40, 20
pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with checkout(PAGE) as folder:
        yield folder


@pytest.fixture(scope="module")
def done(place: Path) -> dict[str, Done]:
    """By its line, what came of each command; nothing follows one that fails."""
    found: dict[str, Done] = {}
    for line in lines(PAGE):
        found[line] = run(line, place)
        assert ends_as_said(line, found[line]), f"{line}\n{found[line].screen}"
    return found


def _screen(done: dict[str, Done], words: str) -> str:
    (screen,) = [one.screen for line, one in done.items() if words in line]
    return screen


def _plan(place: Path, name: str) -> Any:
    return json.loads((place / "runs" / name / "plan.json").read_text())


def _losses(place: Path, name: str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read(place / "runs" / name / METRICS)}


def test_what_is_learnt_is_shown(done: dict[str, Done]) -> None:
    shown = _screen(done, "data look")
    assert "<|assistant|>⟦" in shown
    assert "<|end|>⟧" in shown
    assert "⟦<|user|>" not in shown


@pytest.mark.parametrize(("name", "pools"), [("chat", {"nvidia", "ascend", "kunlun"}), ("fewer", {"nvidia", "kunlun"})])
def test_all_pools_of_a_run_train(name: str, pools: set[str], done: dict[str, Done], place: Path) -> None:
    stages = [stage for pipeline in _plan(place, name)["pipelines"] for stage in pipeline["stages"]]
    assert {stage["pool"] for stage in stages} == pools


def test_without_a_pool_the_training_is_the_same(done: dict[str, Done], place: Path) -> None:
    first, fewer = _losses(place, "chat"), _losses(place, "fewer")
    assert list(first) == list(range(STEPS))
    assert list(fewer) == list(range(RESUMED_AT, STEPS))
    for step, loss in fewer.items():
        assert loss == pytest.approx(first[step], rel=0.1)
    assert fewer[STEPS - 1] < first[0] / 50


def test_the_checkpoint_is_whole(done: dict[str, Done]) -> None:
    assert _screen(done, "checkpoint verify") == f"step {STEPS}: whole\n"


def test_transformers_gives_the_taught_answers(done: dict[str, Done]) -> None:
    (shown,) = PAGE.in_language("text")
    assert _screen(done, "ask.py").endswith(shown.text)
