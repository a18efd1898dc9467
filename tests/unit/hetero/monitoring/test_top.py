"""A run in the terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hetero.cli.app import app
from hetero.monitoring.follow import Follower, follow
from hetero.monitoring.status import status
from hetero.monitoring.top import PLAIN_BARS, view, watch
from tests.unit.hetero.monitoring.crowd import write_crowd
from tests.unit.hetero.monitoring.synthetic import START, append, events, metrics_line, write_run


def _shown(run_dir: Path, now: float = START + 40) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view(status(follow(run_dir), now)))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_newest_step_pool_by_pool(tmp_path: Path) -> None:
    text = _shown(write_run(tmp_path, steps=40))
    line = metrics_line(39)
    assert "step 40/40" in text
    assert f"loss {line['loss']:.4f}" in text
    for name, pool in line["pools"].items():
        row = next(row for row in text.splitlines() if row.startswith(name))
        assert f"{pool['capacity_tokens_per_s']:,.0f}" in row
        assert f"{pool['busy']:.1%}" in row
    assert "emulated pools" in text
    assert "modelled figures" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_curves_are_of_letters_that_the_terminal_has(tmp_path: Path, encoding: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=120).print(view(status(follow(write_run(tmp_path, steps=40)), START + 40)))
    file.seek(0)
    row = next(row for row in file if row.startswith("loss"))
    assert set(row.split()[1]) <= set(PLAIN_BARS)


def test_links_name_both_ends_and_what_they_cost(tmp_path: Path) -> None:
    text = _shown(write_run(tmp_path))
    assert "emulated links (modelled figures)" in text
    row = next(row for row in text.splitlines() if row.split()[:2] == ["nvidia", "ascend"])
    assert row.split()[2:] == ["2", "2.5", "0.020", "2.5%"]


def test_stages_name_units_slowest_rank_and_host(tmp_path: Path) -> None:
    row = next(row for row in _shown(write_run(tmp_path)).splitlines() if "ascend:3" in row)
    assert row.split() == ["0.1", "3-9", "0.240", "0.480", "0.000", "0.050", "ascend:3", "ascend@0"]


def test_a_thousand_chips_are_one_screen(tmp_path: Path) -> None:
    text = _shown(write_crowd(tmp_path))
    assert len(text.splitlines()) < 40
    assert "0-63.1" in text
    assert "1 of 1025 chips of pool nvidia idle" in text


def test_real_and_emulated_pools_have_tables_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    job = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(job.replace("emulate: {}", "emulate: null", 1))
    text = _shown(tmp_path)
    assert (
        text.index("nvidia\n" if "nvidia\n" in text else "nvidia ")
        < text.index("emulated pools")
        < text.index("kunlun ")
    )


def test_names_are_neither_markup_nor_commands_to_the_terminal(tmp_path: Path) -> None:
    name = "[/red]\x1b]0;owned\x07"
    text = _shown(write_run(tmp_path, name=name, pool_names={"nvidia": name}))
    assert "[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_has_hardly_begun(tmp_path: Path, steps: int) -> None:
    assert ("starting" if steps == 0 else "running") in _shown(write_run(tmp_path, steps=steps), now=START + 2)


def test_watching_ends_with_the_run(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    run = watch(Follower(write_run(tmp_path, finished=True)), console, every_s=60)
    assert run.state == "finished"
    assert "finished" in console.file.getvalue()  # type: ignore[attr-defined]


def test_watching_follows_until_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, steps=1)

    def go_on(_: float) -> None:
        append(tmp_path / "metrics.jsonl", metrics_line(1))
        append(tmp_path / "events.jsonl", list(events(finished=True))[-1])

    monkeypatch.setattr("hetero.monitoring.top.time", SimpleNamespace(sleep=go_on))
    console = Console(file=io.StringIO(), width=120)
    assert watch(Follower(tmp_path), console, every_s=1).step == 2


def test_the_command_prints_once_into_a_pipe(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["top", str(write_run(tmp_path))], catch_exceptions=False)
    assert result.exit_code == 0
    assert "step 40/40" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("command", ["top", "report"])
def test_help_is_light(command: str) -> None:
    script = f"""
import sys
from hetero.cli.app import run
assert run([{command!r}, "--help"]) == 0
assert not {{"torch", "ray", "plotly", "jinja2", "yaml"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
