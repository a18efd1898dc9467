"""The order in which a run comes up and goes down, without a fleet: wherever a signal meets it, its record says so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hetero.run as subject
from hetero.cluster.doctor import guard
from hetero.cluster.errors import RayFailure
from hetero.cluster.session import Session
from hetero.interrupts import check
from hetero.job.errors import FolderLost
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.monitoring.journal import EVENTS, read
from hetero.monitoring.notice import Notice
from tests.architecture.tree import ROOT

STAGES = ("ray", "trackers", "agents", "session", "drive")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(256)) * 40)
    return load_job(ROOT / "configs" / "runs" / "quickstart.yaml", [f"data.source={text}", "data.seq_len=16"])


class Stages:
    """Stands in for all that `train` starts. Notes what comes and goes; a signal arrives in the stage `meets`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.meets = ""
        for name, target in (("ray", "ray_runtime"), ("agents", "ray_agents")):
            patch.setattr(subject, target, lambda *_, name=name: self._stage(name))
        patch.setattr(subject, "Monitor", self._watch)
        patch.setattr(Session, "start", lambda *_: self._stage("session"))
        patch.setattr(subject._Run, "drive", lambda *_: self._arrives("drive"))

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._arrives(name)
        self.seen.append(name)
        yield SimpleNamespace(notes=(), carries_checkpoints=False)
        self.seen.append(f"no {name}")

    def _arrives(self, name: str) -> None:
        if name == self.meets:
            signal.raise_signal(signal.SIGTERM)
            check()

    def _watch(self, *_: Any) -> Any:
        stages, stage = self, self._stage("trackers")

        class Watch:
            def start(self) -> list[Notice]:
                stage.__enter__()
                return []

            def close(self) -> list[Notice]:
                if "trackers" in stages.seen and "no trackers" not in stages.seen:
                    stage.__exit__(None, None, None)
                return []

            def event(self, _: Any) -> None: ...

        return Watch()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def test_trackers_start_after_ray_and_end_before_it(stages: Stages, job: Job, tmp_path: Path) -> None:
    subject.train(job, tmp_path / "run")
    up = [stage for stage in STAGES if stage != "drive"]
    assert stages.seen == [*up, *(f"no {stage}" for stage in reversed(up))]


def test_a_run_says_who_else_may_give_orders_to_its_cluster(
    stages: Stages, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        guard, "of_joined", lambda: [guard.token(is_open=True), guard.tls(is_on=True, on_one_machine=False)]
    )
    subject.train(job, tmp_path / "run", address="10.0.0.1:6379")
    (warning,) = [event for event in read(tmp_path / "run" / EVENTS) if event["kind"] == "warning"]
    assert "may run code on all its hosts; ray get-auth-token" in warning["data"]["note"]


@pytest.mark.parametrize("stage", [*(pytest.param(one, marks=pytest.mark.slow) for one in STAGES[:-1]), STAGES[-1]])
def test_interrupted_is_the_last_event(stages: Stages, job: Job, tmp_path: Path, stage: str) -> None:
    stages.meets = stage
    with pytest.raises(KeyboardInterrupt):
        subject.train(job, tmp_path / "run")
    assert [event["kind"] for event in read(tmp_path / "run" / EVENTS)] == ["started", "interrupted"]


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (FolderLost("--run-dir", "run", "its claim was removed", "none"), "its claim was removed"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
    ids=["explained", "unexplained"],
)
def test_the_drivers_own_failure_is_the_last_event(
    stages: Stages, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, last: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(subject._Run, "drive", fail)
    with pytest.raises(type(error)):
        subject.train(job, tmp_path / "run")
    started, failed = read(tmp_path / "run" / EVENTS)
    assert (started["kind"], failed["kind"], failed["data"]["cause"]) == ("started", "failed", last)


def test_what_the_fleet_has_told_is_not_told_again(
    stages: Stages, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: subject._Run, *_: Any) -> None:
        run.heard(Notice("failed", {"cause": "a rank died"}, 0, 0))
        raise RayFailure("Ray", "", "", "")

    monkeypatch.setattr(subject._Run, "drive", fail)
    with pytest.raises(RayFailure):
        subject.train(job, tmp_path / "run")
    assert [event["kind"] for event in read(tmp_path / "run" / EVENTS)] == ["started", "failed"]


def test_an_interruption_while_the_text_is_made_leaves_nothing(
    stages: Stages, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(_: Any, folder: Path, **__: Any) -> None:
        folder.mkdir()
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(subject, "prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        subject.train(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert stages.seen == []
