"""Run directories that strangers made: every view says what it can, in bounded time, and nobody sees a traceback."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from balancer.plan.plan import Plan
from hetero.cli.app import run
from hetero.monitoring.dashboard.sections import OpenPage, RunView
from hetero.monitoring.follow import Follower, Point, follow
from hetero.monitoring.journal import parse
from hetero.monitoring.report.page import render
from hetero.monitoring.report.tables import FlopsTable, LedgerTable
from hetero.monitoring.shapes import JOB, METRICS_LINE, fits
from hetero.monitoring.status import status, typical_pools
from hetero.monitoring.top import view
from hetero.monitoring.trace import Trace
from tests.unit.hetero.monitoring.synthetic import CHIPS, append, events, metrics_line, write_run

DEEP = "[" * 20_000
LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
ODD: tuple[Any, ...] = (None, True, -1, 10**299, "text", [], {}, [[]], {"a": {"b": []}}, 1e300)


def looked_at(run_dir: Path) -> str:
    """By every view; what `hetero top` shows."""
    console = Console(file=io.StringIO(), width=120)
    console.print(view(status(follow(run_dir))))
    seen = RunView(run_dir)
    seen.refresh()
    for _, text in OpenPage(seen).news():
        json.loads(text, parse_constant=pytest.fail)
    if follow(run_dir).events or follow(run_dir).recent:
        assert run(["report", str(run_dir)]) == 0
        (run_dir / "report.html").unlink()
    return console.file.getvalue()  # type: ignore[attr-defined]


def add(name: str, text: str) -> Callable[[Path], Any]:
    return lambda run_dir: (run_dir / name).open("a").write(text + "\n")


def put(name: str, text: str) -> Callable[[Path], Any]:
    return lambda run_dir: (run_dir / name).write_text(text)


def pipe(name: str) -> Callable[[Path], Any]:
    def become(run_dir: Path) -> None:
        (run_dir / name).unlink(missing_ok=True)
        os.mkfifo(run_dir / name)

    return become


LINES, FILES = ("metrics.jsonl", "events.jsonl", "trace.json"), ("job.yaml", "plan.json")
SPOILT = [
    *(add(name, text) for name in LINES for text in (DEEP, '{"step": ' + "9" * 5000 + ', "a": []}')),
    *(put(name, text) for name in FILES for text in (DEEP, LAUGHS)),
    *(put("job.yaml", f"name: {text}") for text in ("[" * 900 + "]" * 900, "&a [*a]")),
    put("job.yaml", LAUGHS + "name: *l\npools: *l"),
    *(pipe(name) for name in (*LINES, *FILES)),
]
ALSO = [
    *(add(name, text) for name in LINES for text in ("9" * 5000, "x" * (3 << 20))),
    *(put(name, "9" * 5000) for name in FILES),
    *(put("job.yaml", f"name: {text}") for text in ("{a: 1}", "9" * 5000)),
]
"""What spoils the same files as others do."""


@pytest.mark.parametrize("spoil", [*SPOILT, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ALSO)])
@pytest.mark.slow
def test_what_no_run_writes_is_passed_over(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    Trace(write_run(tmp_path) / "trace.json").close()
    spoil(tmp_path)
    shown = looked_at(tmp_path)
    if (tmp_path / "metrics.jsonl").is_file():
        assert "step 40" in shown


def places(data: Any) -> list[tuple[Any, ...]]:
    """The paths of all values in plain data; of a list the first alone."""
    parts: list[tuple[Any, Any]] = list(data.items()) if isinstance(data, dict) else []
    parts += [(0, data[0])] if isinstance(data, list) and data else []
    return [path for key, part in parts for path in ((key,), *((key, *below) for below in places(part)))]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(data))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def glance(follower: Follower) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(view(status(follower)))
    render(follower, LedgerTable(missing="none"), FlopsTable(), None)


def test_no_type_of_value_in_a_line_of_metrics_breaks_a_view(tmp_path: Path) -> None:
    follower, fitting = follow(write_run(tmp_path, steps=3)), 0
    for path in places(metrics_line(0)):
        for value in ODD:
            if (line := parse(json.dumps(replaced(metrics_line(4), path, value)).encode(), METRICS_LINE)) is not None:
                follower.recent[-1], fitting = line, fitting + 1
                Point.of(line)
                status(follower)
    assert fitting > 50
    glance(follower)


def test_no_type_of_value_in_an_event_breaks_a_view(tmp_path: Path) -> None:
    write_run(tmp_path, steps=3)
    told = [*events(finished=True), {"seq": 9, "time": 1.0, "kind": "failed", "data": {"error": {"message": "x"}}}]
    told += [{"seq": 9, "time": 1.0, "kind": "rank_slow", "pool": "a", "data": {"pipeline": 0, "stage": 1}}]
    told += [{"seq": 9, "time": 1.0, "kind": "started", "data": {"node": "a", "software": {"os": "b"}}}]
    for event in told:
        for path in places(event):
            for value in ODD:
                append(tmp_path / "events.jsonl", replaced(event, path, value))
    console = Console(file=io.StringIO(), width=120)
    console.print(view(status(follow(tmp_path))))
    looked_at(tmp_path)


ANOTHER = [pytest.param(of, marks=pytest.mark.slow) for of in ([{}], [{"pool": 5}], "text")]


@pytest.mark.parametrize("calibrated", [[{"pool": "nvidia", "tp": [], "kind": {}}], *ANOTHER])
def test_a_calibration_that_is_none_costs_the_ledger_alone(tmp_path: Path, calibrated: Any) -> None:
    write_run(tmp_path)
    append(tmp_path / "events.jsonl", {"kind": "planned", "seq": 50, "data": {"calibrated": calibrated}})
    assert "step 40" in looked_at(tmp_path)


@pytest.mark.parametrize(
    "units", [[0, 10**9], *(pytest.param(of, marks=pytest.mark.slow) for of in ([-(10**9), 4], [5, 2], []))]
)
def test_a_plan_of_such_numbers_that_a_view_would_not_come_to_an_end_is_passed_over(tmp_path: Path, units: Any) -> None:
    run_dir = write_run(tmp_path, steps=3)
    plan = json.loads((run_dir / "plan.json").read_text())
    plan["pipelines"][0]["stages"][0]["units"] = units
    (run_dir / "plan.json").write_text(json.dumps(plan))
    assert follow(run_dir).plan is None
    looked_at(run_dir)


def as_plan(data: Any) -> Plan | None:
    try:
        return Plan.model_validate(data)
    except ValidationError:
        return None


def test_no_type_of_value_in_job_or_plan_breaks_a_view(tmp_path: Path) -> None:
    follower, fitting = follow(write_run(tmp_path, steps=3)), 0
    assert follower.plan
    for file, whole, load in (
        (follower._job, follower.job, lambda data: data if fits(data, JOB) else None),
        (follower._plan, follower.plan.model_dump(mode="json"), as_plan),
    ):
        before = file.content
        for path in places(whole):
            for value in ODD:
                if (changed := load(replaced(whole, path, value))) is not None:
                    file.content, fitting = changed, fitting + 1
                    status(follower)
        file.content = before
    assert fitting > 50
    glance(follower)


def test_a_kind_for_every_event_is_not_kept(tmp_path: Path) -> None:
    write_run(tmp_path, finished=True)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.writelines(f'{{"kind": "k{number}"}}\n' for number in range(6000))
    follower = follow(tmp_path)
    assert len(follower.last_of_kind) < 5000
    assert status(follower).state == "finished"


def test_pools_of_other_names_in_each_step_are_no_pools_of_the_run(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, steps=3)
    for step in range(3, 9):
        line = metrics_line(step)
        append(run_dir / "metrics.jsonl", line | {"pools": {f"p{step}": line["pools"]["nvidia"]}})
    assert {pool.name for pool in typical_pools(follow(run_dir))} == {*CHIPS, "p8"}


EVIL = "[bold]\x1b]0;owned\x07\u202e\r\x9b2J\ud800"


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    write_run(tmp_path, pool_names={"nvidia": EVIL})
    (tmp_path / "job.yaml").write_text(json.dumps({**follow(tmp_path).job, "name": EVIL}))
    append(tmp_path / "events.jsonl", {"seq": 50, "kind": EVIL, "pool": EVIL, "data": {"x": EVIL}})
    append(tmp_path / "events.jsonl", {"seq": 51, "kind": "failed", "data": {"cause": EVIL}})
    shown = looked_at(tmp_path)
    assert run(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    seen = RunView(tmp_path)
    seen.refresh()
    sent = "".join(text for _, text in OpenPage(seen).news())
    assert "[bold]" in shown
    for letter in "\x1b\x07\u202e\x9b\ud800":
        assert letter not in shown
    written = page.partition("<main>")[2].partition("</main>")[0]
    assert not [letter for letter in "\u202e\x07\x9b\ud800" if letter in written]
    assert "\\u202e" not in sent
