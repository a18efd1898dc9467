"""Following a run's files: what is added, torn, written again, or not there yet."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from hetero.monitoring.errors import MonitorError
from hetero.monitoring.follow import CHARTED, RECENT, Follower, follow
from hetero.monitoring.shadow_status import ShadowStatus
from tests.unit.hetero.monitoring.reports import SHADOW
from tests.unit.hetero.monitoring.synthetic import append, events, metrics_line, write_run


def test_a_directory_that_comes_later(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "run")
    assert not follower.poll()
    assert follower.last is None
    write_run(tmp_path / "run", steps=3)
    assert follower.poll()
    assert [point.step for point in follower.series()] == [0, 1, 2]
    assert follower.job["name"] == "quickstart"
    assert follower.plan
    assert not follower.poll()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="nowhere"):
        follow(tmp_path / "nowhere")


def test_lines_come_whole_as_written(tmp_path: Path) -> None:
    write_run(tmp_path, steps=2)
    assert follow(tmp_path).last == metrics_line(1)


def test_a_torn_last_line_waits_for_its_rest(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, steps=2))
    line = json.dumps(metrics_line(2)) + "\n"
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line[:200])
        file.flush()
        assert not follower.poll()
        file.write(line[200:])
    assert follower.poll()
    assert follower.last == metrics_line(2)
    assert follower.unreadable == 0


@pytest.mark.parametrize(
    "torn", ['{"step": 2, "loss": 3.', '{"step": 2, "pools": {"nvidia": {}', "\x00\x00", "[]", "7"]
)
def test_a_line_that_stays_torn_is_counted_and_passed_over(tmp_path: Path, torn: str) -> None:
    write_run(tmp_path, steps=2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn + "\n")
    append(tmp_path / "metrics.jsonl", metrics_line(2))
    follower = follow(tmp_path)
    assert [point.step for point in follower.series()] == [0, 1, 2]
    assert follower.unreadable == 1
    assert follower.restarts == 0


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, steps=8))
    for step in range(5, 7):
        append(tmp_path / "metrics.jsonl", metrics_line(step) | {"loss": 9.0})
    follower.poll()
    assert [point.step for point in follower.series()] == list(range(7))
    assert [point.loss for point in follower.series()[5:]] == [9.0, 9.0]
    assert follower.restarts == 1


def test_a_resumed_run_read_at_once_is_the_same(tmp_path: Path) -> None:
    write_run(tmp_path, steps=8)
    for step in range(5, 7):
        append(tmp_path / "metrics.jsonl", metrics_line(step) | {"loss": 9.0})
    follower = follow(tmp_path)
    assert [(point.step, point.loss == 9.0) for point in follower.series()] == [(s, s >= 5) for s in range(7)]


def test_a_replaced_run_is_read_anew(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, steps=20, finished=True))
    for name in ("metrics.jsonl", "events.jsonl"):
        (tmp_path / name).unlink()
    assert not follower.poll()
    write_run(tmp_path, steps=3, name="second")
    assert follower.poll()
    assert [point.step for point in follower.series()] == [0, 1, 2]
    assert follower.job["name"] == "second"
    assert "finished" not in follower.last_of_kind


def test_a_run_replaced_by_one_of_equal_length_is_news(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, steps=3))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(metrics_line(s) | {"loss": 9.0}) + "\n" for s in range(3)))
    (tmp_path / "other.jsonl").replace(tmp_path / "metrics.jsonl")
    assert follower.poll()
    assert [point.loss for point in follower.series()] == [9.0] * 3


def test_a_cut_file_is_read_anew(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, steps=20))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics_line(0)) + "\n")
    follower.poll()
    assert [point.step for point in follower.series()] == [0]


def test_evaluations_are_kept_apart(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    for step in range(4 * CHARTED):
        append_to = {"eval_loss": step / 10 if step % 1000 == 999 else None}
        append(tmp_path / "metrics.jsonl", {"step": step} | append_to)
    follower = follow(tmp_path)
    assert [point.step for point in follower.evaluations()] == list(range(999, 4 * CHARTED, 1000))


def test_the_newest_shadow_is_kept_until_its_step_is_taken_back(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    path, found = tmp_path / "metrics.jsonl", asdict(SHADOW)
    for step in range(2 * RECENT):
        append(path, {"step": step} | ({"shadow": found | {"micro_batch": step}} if step in (3, 7) else {}))
    follower = follow(tmp_path)
    assert follower.shadowed is not None
    assert (follower.shadowed["step"], follower.shadowed["shadow"]["micro_batch"]) == (7, 7)
    shown = ShadowStatus.of(follower.shadowed)
    assert shown is not None
    assert str(shown) == "5.0e-07 of 1e-05 (stage 0.1 on b, unit 3 attention, by a at step 7)"
    assert not shown.drifts
    append(path, {"step": 5})
    follower.poll()
    assert follower.shadowed is None


@pytest.mark.parametrize(("again_from", "kept"), [(5, None), (8, 7)])
def test_so_is_one_that_is_read_together_with_the_step_back(tmp_path: Path, again_from: int, kept: int | None) -> None:
    write_run(tmp_path, steps=0)
    for step in [*range(10), again_from]:
        append(tmp_path / "metrics.jsonl", {"step": step} | ({"shadow": asdict(SHADOW)} if step in (3, 7) else {}))
    shown = ShadowStatus.of(follow(tmp_path).shadowed)
    assert (shown and shown.step) == kept


@pytest.mark.parametrize("error", ["value", "gradient"])
def test_an_error_that_is_no_number_is_drift(error: str) -> None:
    shown = ShadowStatus.of({"step": 7, "shadow": cast(Any, asdict(SHADOW) | {error: None})})
    assert shown is not None
    assert shown.drifts
    assert str(shown).startswith("not finite of 1e-05")


def test_a_unit_without_a_gradient_is_judged_by_its_value() -> None:
    found = asdict(SHADOW)
    del found["gradient"]
    shown = ShadowStatus.of({"step": 7, "shadow": cast(Any, found)})
    assert shown is not None
    assert (shown.error, shown.drifts) == (SHADOW.value, False)


def test_events_and_hosts(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path, finished=True))
    assert list(follower.events) == list(events(finished=True))
    assert set(follower.hosts) == {"nvidia@0", "ascend@0", "kunlun@0"}
    assert follower.last_of_kind["finished"]


def test_a_half_written_plan_leaves_the_one_before(tmp_path: Path) -> None:
    follower = follow(write_run(tmp_path))
    before = follower.plan
    (tmp_path / "plan.json").write_text('{"version": 1, "pip')
    assert not follower.poll()
    assert follower.plan == before


@pytest.mark.slow
def test_a_long_run_opens_at_once_and_in_little_memory(tmp_path: Path) -> None:
    steps = 100_000
    with (tmp_path / "metrics.jsonl").open("w") as file:
        tail = json.dumps(metrics_line(0)).removeprefix('{"step": 0')
        file.writelines(f'{{"step": {step}{tail}\n' for step in range(steps))
    started = time.process_time()
    follower = follow(tmp_path)
    series = follower.series()
    assert time.process_time() - started < 2.0
    assert len(follower.recent) == RECENT
    assert len(series) <= CHARTED + RECENT
    assert (series[0].step, series[-1].step) == (0, steps - 1)
    gaps = [after.step - before.step for before, after in pairwise(series)]
    assert max(gaps) <= 4 * steps / CHARTED
