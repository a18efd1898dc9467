"""What any view shows of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.plan.equal import named
from hetero.monitoring.follow import follow
from hetero.monitoring.status import SILENT_AFTER_S, RunStatus, status, typical_pools
from tests.unit.hetero.monitoring.crowd import SLOWEST, write_crowd
from tests.unit.hetero.monitoring.synthetic import START, append, events, metrics_line, write_run

SOON = START + 40


def _status(run_dir: Path, now: float = SOON) -> RunStatus:
    return status(follow(run_dir), now)


def test_figures_are_those_of_the_newest_line(tmp_path: Path) -> None:
    run = _status(write_run(tmp_path, steps=40))
    line = metrics_line(39)
    assert (run.name, run.state, run.step, run.steps) == ("quickstart", "running", 40, 40)
    for key in ("loss", "grad_norm", "lr", "step_s", "tokens_per_s", "goodput", "link_ratio", "emulated"):
        assert getattr(run, key) == line[key]
    for pool in run.pools:
        for key, value in line["pools"][pool.name].items():
            if not key.startswith("bytes"):
                assert getattr(pool, key) == value
        assert pool.sent_bytes_per_s == line["pools"][pool.name]["bytes_sent"] / line["step_s"]
        assert pool.exposed_s == line["pools"][pool.name]["bridge_wait"] * line["step_s"]


def test_a_link_is_as_real_as_both_its_ends(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert [(link.source, link.target, link.emulated) for link in _status(tmp_path).links] == [
        ("nvidia", "ascend", True), ("ascend", "nvidia", True),
    ]  # fmt: skip
    job = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(job.replace("emulate: {}", "emulate: null", 1))
    assert all(link.emulated for link in _status(tmp_path).links)
    (tmp_path / "job.yaml").write_text(job.replace("emulate: {}", "emulate: null"))
    assert not any(link.emulated for link in _status(tmp_path).links)


def test_lines_from_before_links_were_recorded(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    append(tmp_path / "metrics.jsonl", {key: value for key, value in metrics_line(0).items() if key != "links"})
    assert _status(tmp_path).links == ()


def test_a_stage_names_its_slowest_rank_and_host(tmp_path: Path) -> None:
    run = _status(write_run(tmp_path))
    assert [(stage.slowest_rank, stage.host) for stage in run.stages] == [
        ("nvidia:1", "nvidia@0"), ("ascend:3", "ascend@0"), ("kunlun:1", "kunlun@0"),
    ]  # fmt: skip


def test_a_slowed_pool_shows_at_once(tmp_path: Path) -> None:
    before = {pool.name: pool.capacity_tokens_per_s for pool in _status(write_run(tmp_path / "a")).pools}
    run = _status(write_run(tmp_path / "b", slow_from=(39, {"ascend": 1.5})))
    after = {pool.name: pool.capacity_tokens_per_s for pool in run.pools}
    assert after["ascend"] < 0.9 * before["ascend"]
    assert after["kunlun"] == pytest.approx(before["kunlun"])


def test_pools_that_no_job_file_names_keep_the_order_of_the_line(tmp_path: Path) -> None:
    """Whatever the order of a set of them is in this process."""
    write_run(tmp_path, steps=0)
    (tmp_path / "job.yaml").unlink()
    line, names = metrics_line(0), [f"p{number}" for number in range(12)]
    append(tmp_path / "metrics.jsonl", {**line, "pools": dict.fromkeys(names, line["pools"]["nvidia"])})
    assert [pool.name for pool in typical_pools(follow(tmp_path))] == names


def test_emulated_is_labelled(tmp_path: Path) -> None:
    run = _status(write_run(tmp_path))
    assert "emulated" in (run.label or "")
    assert "link_ratio 0.31" in (run.label or "")
    assert all(pool.emulated for pool in run.pools)


def test_real_chips_carry_no_label(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    append(tmp_path / "metrics.jsonl", metrics_line(0, emulated=False))
    assert _status(tmp_path).label is None


def test_states(tmp_path: Path) -> None:
    assert _status(tmp_path).state == "waiting"
    write_run(tmp_path, steps=0)
    assert _status(tmp_path, START + 60).state == "starting"
    assert _status(tmp_path, START + 1000).state == "silent"
    append(tmp_path / "metrics.jsonl", metrics_line(0))
    assert _status(tmp_path, START + 2).state == "running"
    assert _status(tmp_path, START + 2 + SILENT_AFTER_S).state == "silent"


@pytest.mark.parametrize("kind", ["finished", "failed", "interrupted"])
def test_an_end_stays_the_end_until_the_run_starts_anew(tmp_path: Path, kind: str) -> None:
    write_run(tmp_path)
    data = {"cause": "killed by signal 9"} if kind == "failed" else {}
    last = list(events())[-1]
    append(tmp_path / "events.jsonl", last | {"seq": 6, "kind": kind, "data": data})
    run = _status(tmp_path, START + 1e6)
    assert run.state == kind
    assert run.failure == ("killed by signal 9" if kind == "failed" else None)
    append(tmp_path / "events.jsonl", last | {"seq": 7, "kind": "measuring"})
    run = _status(tmp_path)
    assert run.state == "running"
    assert run.failure is None


def test_the_plan(tmp_path: Path) -> None:
    run = _status(write_run(tmp_path))
    assert run.plan
    assert [(pipeline.share, len(pipeline.stages)) for pipeline in run.plan.pipelines] == [(20, 2), (12, 1)]
    assert run.plan.pipelines[0].stages[1].units == ((3, 10),)


def test_equal_pipelines_are_one_and_the_slowest_stands_for_them(tmp_path: Path) -> None:
    run = _status(write_crowd(tmp_path))
    assert [named(numbers) for numbers in run.equal] == ["pipelines 0-63 (x 64)"]
    assert [(stage.name, stage.pipeline) for stage in run.stages] == [("0-63.0", SLOWEST), ("0-63.1", SLOWEST)]
    assert run.stages[0].slowest_rank == f"nvidia:{16 * SLOWEST}"


def test_chips_that_the_plan_leaves_over_are_counted_and_explained_where_somebody_did(tmp_path: Path) -> None:
    run = _status(write_crowd(tmp_path))
    assert [str(idle) for idle in run.idle] == ["1 of 1025 chips of pool nvidia idle"]
    assert run.pools[0].size == "1025 x A800-80G, 1 idle"
    told = {"pool": "nvidia", "chips": 1, "count": 1025, "why": "tp 8 does not divide 1025", "remedy": "use fewer"}
    append(tmp_path / "events.jsonl", list(events())[-1] | {"kind": "planned", "data": {"idle": [told]}})
    [idle] = _status(tmp_path).idle
    assert str(idle) == "1 of 1025 chips of pool nvidia idle: tp 8 does not divide 1025; use fewer"
    assert not _status(write_run(tmp_path / "all at work")).idle


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    append(tmp_path / "metrics.jsonl", metrics_line(0) | {"loss": None})
    assert _status(tmp_path).loss is None
