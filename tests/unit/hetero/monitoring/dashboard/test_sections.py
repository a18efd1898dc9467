from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balancer.plan.plan import Plan
from hetero.job.judged import ledger_table
from hetero.monitoring.dashboard import live_ledger
from hetero.monitoring.dashboard.sections import OpenPage, RunView, slow_now
from hetero.monitoring.follow import CHARTED, RECENT, Follower
from hetero.monitoring.report.tables import LedgerRow, LedgerTable
from tests.patience import WAIT_S
from tests.unit.hetero.monitoring.dashboard.runs import CHIPS, PLAN, SyntheticRun
from tests.unit.hetero.monitoring.synthetic import write_run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[SyntheticRun]:
    run = SyntheticRun(tmp_path / "run")
    yield run
    run.close()


def _news(view: RunView, reader: OpenPage) -> dict[str, Any]:
    view.refresh()
    return {name: json.loads(text) for name, text in reader.news()}


def test_a_new_page_is_sent_everything_and_then_only_what_changed(run: SyntheticRun) -> None:
    run.advance(3)
    view = RunView(run.folder)
    reader = OpenPage(view)
    first = _news(view, reader)
    assert set(first) == {"run", "record", "stages", "evaluations", "plan", "timeline", "ledger", "events", "points"}
    assert first["record"] == run.records[-1], "the figures are those of metrics.jsonl, untouched"
    plan = json.loads(Plan.model_validate(PLAN).to_json())
    assert first["plan"] == plan | {"equal": [[0], [1]], "idle": []}
    assert [point[0] for point in first["points"]["points"]] == [0, 1, 2]
    assert first["points"]["reset"] is True
    assert _news(view, reader) == {}
    run.advance()
    then = _news(view, reader)
    assert set(then) == {"run", "record", "points"}
    assert then["points"] == {"reset": False, "pools": list(CHIPS), "points": [_point(run.records[-1])]}


def test_the_newest_shadow_is_part_of_the_run(run: SyntheticRun) -> None:
    view = RunView(run.folder)
    run.advance(7)
    assert _news(view, OpenPage(view))["run"]["shadow"] is None
    run.advance(3)
    assert _news(view, OpenPage(view))["run"]["shadow"] == {
        "step": 7, "place": "0.1", "pool": "ascend", "by": "nvidia", "unit": "5 attention", "error": 4e-3,
        "tolerance": 3e-2, "drifts": False,
    }  # fmt: skip


def _point(record: dict[str, Any]) -> list[Any]:
    keys = "capacity_tokens_per_s", "tokens_per_s"
    rates = [pool[key] for pool in record["pools"].values() for key in keys]
    return [record["step"], *(float(f"{value:.6g}") for value in (record["loss"], record["tokens_per_s"], *rates))]


def _finish_judging() -> None:
    for thread in threading.enumerate():
        if thread.name == "live ledger":
            thread.join(WAIT_S)
            assert not thread.is_alive()


def test_the_ledger_is_judged_now_and_then(run: SyntheticRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second is done every fiftieth, and only where there is a new step."""
    clock, judged = [0.0], list[int]()
    monkeypatch.setattr(live_ledger, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def judge(follower: Follower) -> LedgerTable:
        assert follower.last is not None
        judged.append(follower.last["step"])
        clock[0] += 1.0
        return LedgerTable([LedgerRow("bubble", 0.1, 0.2)], "run", 1.0, 2.0)

    view = RunView(run.folder, judge)
    view.refresh()
    assert view.sections["ledger"] == "null"
    for now_s, wanted in ((0.0, [0]), (50.0, [0]), (51.0, [0, 2]), (500.0, [0, 2, 3])):
        run.advance()
        clock[0] = max(clock[0], now_s)
        view.refresh()
        _finish_judging()
        assert judged == wanted
    clock[0] = 5000.0
    view.refresh()
    _finish_judging()
    assert judged == [0, 2, 3], "nothing new"
    ledger = json.loads(view.sections["ledger"])
    assert (ledger["step"], ledger["rows"]) == (3, [["bubble", 0.1, 0.2]])


def test_nobody_waits_for_a_ledger_that_is_judged_by_what_was_known_when_it_began(run: SyntheticRun) -> None:
    begun, go_on, known = threading.Event(), threading.Event(), list[Any]()

    def judge(follower: Follower) -> LedgerTable:
        begun.set()
        assert go_on.wait(WAIT_S)
        known.append((follower.last, len(follower.recent), len(follower.series()), len(follower.events), follower.plan))
        return LedgerTable(missing="slowly judged")

    run.advance(3)
    view = RunView(run.folder, judge)
    reader = OpenPage(view)
    first = _news(view, reader)
    assert (first["record"]["step"], first["ledger"]) == (2, None)
    assert begun.wait(WAIT_S)
    run.advance(300)
    (run.folder / "plan.json").write_text(json.dumps(PLAN | {"epoch": 1}))
    then = _news(view, reader)
    assert (then["record"]["step"], then["plan"]["epoch"]) == (302, 1), "the page goes on meanwhile"
    go_on.set()
    _finish_judging()
    assert known == [(run.records[2], 3, 3, len(first["events"]), Plan.model_validate(PLAN))]
    ledger = _news(view, reader)["ledger"]
    assert (ledger["step"], ledger["missing"]) == (2, "slowly judged")
    run.close()
    run.begin()
    run.advance()
    assert _news(view, reader)["ledger"] is None, "it is of a run that is no more"


def test_a_judge_that_fails_leaves_the_page_and_is_asked_again(
    run: SyntheticRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_ledger, "EVERY_S", 0.0)
    monkeypatch.setattr(live_ledger, "MOST_PART", 1.0)
    steps = list[int]()

    def judge(follower: Follower) -> LedgerTable:
        assert follower.last is not None
        steps.append(follower.last["step"])
        if len(steps) == 2:
            raise RuntimeError("a fault of the judge")
        return LedgerTable(missing=f"judged at {steps[-1]}")

    view, shown = RunView(run.folder, judge), list[str]()
    for _ in range(3):
        run.advance()
        view.refresh()
        _finish_judging()
        view.refresh()
        shown.append(json.loads(view.sections["ledger"])["missing"])
    assert (steps, shown) == ([0, 1, 2], ["judged at 0", "judged at 0", "judged at 2"])


def test_a_judge_at_work_ends_with_the_page(run: SyntheticRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_ledger, "EVERY_S", 0.0)
    begun = threading.Event()

    def judge(_: Follower) -> LedgerTable:
        begun.set()
        while True:
            sum(range(1000))

    run.advance()
    view = RunView(run.folder, judge)
    view.refresh()
    assert begun.wait(WAIT_S)
    view.close()
    for _ in range(2):
        assert "live ledger" not in [thread.name for thread in threading.enumerate()]
        run.advance()
        view.refresh()  # one that was under way when the page was closed


def test_a_run_is_judged_by_its_own_job_and_plan(tmp_path: Path) -> None:
    view = RunView(write_run(tmp_path / "run"), ledger_table)
    view.refresh()
    _finish_judging()
    view.refresh()
    ledger = json.loads(view.sections["ledger"])
    assert not ledger["missing"]
    for shares in zip(*(row[1:] for row in ledger["rows"]), strict=True):
        assert sum(shares) == pytest.approx(1)
    assert {name for name, *_ in ledger["pools"]} == {*CHIPS, "all"}


def test_refresh_says_whether_there_is_anything_new(run: SyntheticRun) -> None:
    view = RunView(run.folder)
    assert view.refresh()
    assert not view.refresh()
    run.advance()
    assert view.refresh()


def test_a_run_that_begins_anew_resets_the_curves(run: SyntheticRun) -> None:
    run.advance(20)
    view = RunView(run.folder)
    reader = OpenPage(view)
    _news(view, reader)
    run.close()
    run.begin()
    run.advance(2)
    points = _news(view, reader)["points"]
    assert (points["reset"], [point[0] for point in points["points"]]) == (True, [0, 1])


def test_a_folder_without_a_run_is_shown_as_such(tmp_path: Path) -> None:
    view = RunView(tmp_path / "none")
    news = _news(view, OpenPage(view))
    assert news["run"]["state"] == "waiting"
    assert news["points"] == {"reset": True, "pools": [], "points": []}
    assert (news["record"], news["plan"], news["timeline"]) == (None, None, None)


def test_a_slowed_pool_is_named_with_its_slow_rank_within_three_steps(run: SyntheticRun) -> None:
    run.advance(12)
    view = RunView(run.folder)
    reader = OpenPage(view)
    assert all(pool["slow"] is None for pool in _news(view, reader)["run"]["pools"])
    run.slow = {"ascend"}
    run.advance(3)
    shown = _news(view, reader)["run"]
    slow = {pool["name"]: pool["slow"] for pool in shown["pools"]}
    assert slow["ascend"]["ratio"] == pytest.approx(0.6, rel=0.05)
    assert (slow["nvidia"], slow["kunlun"]) == (None, None)
    assert shown["slow_ranks"] == ["ascend:1"]
    run.slow = set()
    run.advance(3)
    shown = _news(view, reader)["run"]
    assert all(pool["slow"] is None for pool in shown["pools"])
    assert shown["slow_ranks"] == []


def test_a_new_plan_makes_alerts_void() -> None:
    slow = {"kind": "pool_slow", "pool": "a", "data": {}}
    assert slow_now([slow]) == [slow]
    assert slow_now([slow, {"kind": "configured", "data": {}}]) == []


def test_the_timeline_is_that_of_the_last_traced_step(run: SyntheticRun) -> None:
    run.advance(11)
    view = RunView(run.folder)
    timeline = _news(view, OpenPage(view))["timeline"]
    assert timeline["step"] == 10
    assert [rank["rank"] for rank in timeline["ranks"]][:3] == ["nvidia:0", "nvidia:1", "ascend:0"]
    assert timeline["ranks"][0]["spans"][0] == ["F 0.0", 0.0, 0.045]


@pytest.mark.slow
def test_a_long_run_opens_fast_and_is_sent_thinned(run: SyntheticRun) -> None:
    line = json.dumps(run.advance())
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.writelines(line.replace('"step": 0', f'"step": {step}', 1) + "\n" for step in range(1, 100_000))
    began = time.process_time()
    view = RunView(run.folder)
    news = _news(view, OpenPage(view))
    assert time.process_time() - began < 2.0
    assert news["record"]["step"] == 99_999
    assert 1000 < len(news["points"]["points"]) <= CHARTED + RECENT
