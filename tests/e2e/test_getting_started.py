"""docs/getting-started.md as it stands: files are written, commands run one after another, screens compared."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hetero.data.corpus import Corpus
from hetero.monitoring.journal import METRICS, read
from tests.architecture import markdown
from tests.architecture.tree import ROOT
from tests.e2e.page import EXIT_CODE, Done, checkout, ends_as_said, lines, run, started
from tests.patience import WAIT_S

PAGE = markdown.read(ROOT / "docs" / "getting-started.md")
BEFORE = {"make install", ". .venv/bin/activate", "make demo"}
"""What .ci/run does; the tests run in what it installs."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with checkout(PAGE) as folder:
        yield folder


@pytest.fixture(scope="module")
def done(place: Path) -> dict[str, Done]:
    """By its line, what came of each command."""
    return {line: _serve(line, place) if "dashboard" in line else run(line, place) for line in _lines()}


def _lines() -> list[str]:
    return [line for line in lines(PAGE) if line not in BEFORE]


def _serve(line: str, place: Path) -> Done:
    """The page that is served, until Ctrl-C."""
    with started(line, place) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address
            with urllib.request.urlopen(address[0], timeout=WAIT_S) as answer:
                page = answer.read().decode()
            process.send_signal(signal.SIGINT)
            return Done(process.wait(WAIT_S), page)
        finally:
            process.kill()


@pytest.mark.parametrize("line", _lines())
def test_a_command_ends_as_the_page_says(done: dict[str, Done], line: str) -> None:
    assert ends_as_said(line, done[line]), done[line].screen


def test_a_screen_is_the_one_that_is_shown(done: dict[str, Done]) -> None:
    (shown,) = PAGE.in_language("text")
    (command,) = [line for line in done if EXIT_CODE.search(line)]
    assert done[command].screen == shown.text


def test_what_runs_leave(done: dict[str, Done], place: Path) -> None:
    runs = ("first", "second")
    steps = {name: [line["step"] for line in read(place / "runs" / name / METRICS)] for name in runs}
    assert steps == {"first": list(range(10)), "second": [10, 11]}
    assert "<html" in (place / "runs" / "first" / "report.html").read_text()
    assert (place / "runs" / "first" / "plan.json").exists()
    losses = [line["loss"] for line in read(place / "runs" / "first" / METRICS)]
    assert losses[-1] < losses[0]
    assert "<html" in done["hetero dashboard runs/first"].screen


def test_the_text_of_the_example_is_text(place: Path) -> None:
    (block,) = PAGE.in_language("yaml")
    source = yaml.safe_load(block.text)["data"]["source"]
    for document in Corpus.of(str(ROOT / source)).documents():
        b"".join(document).decode()


def test_the_page_has_no_other_blocks() -> None:
    assert {block.language for block in PAGE.blocks} == {"bash", "yaml", "text"}
    assert all(block.text.startswith("# ") for block in PAGE.in_language("yaml"))
    assert len(_lines()) == len(set(_lines()))
