"""What cannot watch a run is refused before the run begins: exit code 2, one screen, and no run left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, Command, short_folder
from tests.patience import WAIT_S

JOB = ROOT / "configs" / "runs" / "auto.yaml"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def _refusal(place: Path, *settings: str) -> str:
    """The screen of a command that must not start a run."""
    options = [part for setting in settings for part in ("--set", setting)]
    with Command(place, "train", JOB, "--run-dir", place / "run", *options) as command:
        assert command.wait(WAIT_S) == 2, command.output
        assert not (place / "run" / "job.yaml").exists()
        assert "Traceback" not in command.output
        return command.output


def test_a_port_that_is_taken(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        screen = _refusal(place, f"monitor.prometheus_port={port}")
    for part in ("monitor.prometheus_port", str(port), "auto"):
        assert part in screen
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("monitor.trackers=[tensorbord]", ("monitor.trackers[0]", "did you mean 'tensorboard'?")),
        (
            "monitor.trackers=[{name: tensorboard, options: {folders: x}}]",
            ("monitor.trackers[0].options.folders", "did you mean 'folder'?"),
        ),
        ("monitor.prometheus_port=70000", ("monitor.prometheus_port", "65535")),
        ("eval.batches=0", ("eval.batches", "greater than 0")),
    ],
)
def test_what_is_misspelt_or_out_of_range(setting: str, parts: tuple[str, ...], place: Path) -> None:
    screen = _refusal(place, setting)
    assert not [part for part in parts if part not in screen], screen
    assert not (place / "run").exists()


def test_a_text_too_short_to_hold_so_much_out(place: Path) -> None:
    (place / "text.txt").write_text("a short text " * 1000)
    screen = _refusal(place, f"data.source={place / 'text.txt'}", "eval.every=5", "eval.batches=4")
    for part in ("eval.batches", "sequences are held out, and the text has 50 in all", "use 3 or less"):
        assert part in screen, screen
