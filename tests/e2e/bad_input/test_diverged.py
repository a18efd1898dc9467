"""Runs that lose their way, and what is told of their checkpoints: `hetero train` with hosts of a script."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from hetero.checkpoint.store import MANIFEST, CheckpointStore
from hetero.cli.app import run
from hetero.job.run.claim import Claim
from hetero.monitoring.journal import EVENTS, METRICS, Record, read
from tests.e2e.bad_input.screens import JOB
from tests.e2e.bad_input.scripted import script

SAME = {"nvidia@0": "same", "ascend@0": "same"}


class Runs:
    """Runs of 12 steps that save every other one and keep two."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        (folder / "text.txt").write_text("some text " * 100)
        self.job = folder / "job.yaml"
        text = JOB.replace("source: python-stdlib", f"source: {folder / 'text.txt'}").replace("steps: 4", "steps: 12")
        self.job.write_text(text.replace("{every: 0}", "{every: 2, keep: 2}"))

    def train(
        self,
        name: str,
        skipped: Collection[int] = (),
        *more: str,
        lost: Collection[int] = (),
        scales: Mapping[int, float] = MappingProxyType({}),
    ) -> str:
        """The screen of a run that skips the updates of some steps, and whose loss is no number in others. `scales` are
        the loss scales of steps."""

        def totals(step: int) -> dict[str, object]:
            scale = {"loss_scale": scales.get(step, 1.0)}
            return {"skipped": step in skipped} | scale | ({"loss": math.nan} if step in lost else {})

        script(self._monkeypatch, fingerprints=SAME, totals=totals)
        assert run(["train", str(self.job), "--run-dir", str(self.folder / name), *more]) == 0
        return self._capsys.readouterr().out

    def store(self, name: str) -> CheckpointStore:
        return CheckpointStore(self.folder / name / "checkpoints")

    def events(self, name: str) -> list[Record]:
        return list(read(self.folder / name / EVENTS))

    def notes(self, name: str) -> list[str]:
        return [event["data"]["note"] for event in self.events(name) if event["kind"] == "warning"]


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, capsys, monkeypatch)


def test_a_run_without_trouble_says_nothing_and_keeps_what_it_should(runs: Runs) -> None:
    runs.train("run", skipped=[0, 1, 5, 9])
    assert runs.store("run").steps() == [10, 12]
    runs.train("on", (), "--resume", str(runs.folder / "run"), "--set", "train.steps=14")
    for name in ("run", "on"):
        told = {event["kind"] for event in runs.events(name)}
        assert not told & {"warning", "passed_over", "updates_skipped", "updates_recovered"}


@pytest.mark.parametrize("how", ["skipped", "lost", "all but one"])
def test_a_row_of_skipped_updates_is_told_and_what_was_before_it_stays(runs: Runs, how: str) -> None:
    """Updates are lost after the checkpoint of step 4, so the last that trained on is that of step 2."""
    bad = set(range(4, 12)) - ({9} if how == "all but one" else set())
    screen = runs.train("run", bad if how != "lost" else (), lost=bad if how == "lost" else ())
    good = f"{runs.folder / 'run'}@{4 if how == 'lost' else 2}"
    (alert,) = [event for event in runs.events("run") if event["kind"].startswith("updates_")]
    assert (alert["kind"], alert["step"], alert["data"]) == ("updates_skipped", 6, {"last_good": good})
    (note,) = runs.notes("run")
    assert note == f"the run ends in a row of skipped updates; the last good checkpoint is {good}"
    assert note in screen
    assert good.endswith(f"@{runs.store('run').steps()[0]}")


def test_a_row_that_ends_is_told_too(runs: Runs) -> None:
    runs.train("run", skipped=range(3, 7))
    told = [(event["kind"], event["step"]) for event in runs.events("run") if event["kind"].startswith("updates_")]
    assert told == [("updates_skipped", 5), ("updates_recovered", 9)]
    assert runs.notes("run") == []
    assert runs.store("run").steps() == [10, 12]


def test_a_loss_scale_is_followed_into_checkpoints_and_told_where_it_can_fall_no_further(runs: Runs) -> None:
    """It falls from 4 to 1 in the first two steps, cannot in the third, and grows after every two good ones."""
    float16 = ("--set", "train.precision=float16", "--set", "train.loss_scale={initial: 4, grow_every: 2}")
    screen = runs.train("run", (0, 1, 2), *float16, scales={0: 4.0, 1: 2.0})
    told = [(event["kind"], event["step"], event["data"]) for event in runs.events("run") if "scale" in event["kind"]]
    assert told[:3] == [
        ("loss_scale", 0, {"was": 4.0, "scale": 2.0}),
        ("loss_scale_least", 1, {"was": 2.0, "scale": 1.0}),
        ("loss_scale", 4, {"was": 1.0, "scale": 2.0}),
    ]
    assert "loss scale least" in screen
    kept = {step: runs.store("run").manifest(step).run.scalars for step in runs.store("run").steps()}
    assert {step: (of["loss_scale"], of["good_steps"]) for step, of in kept.items()} == {10: (8.0, 1), 12: (16.0, 1)}
    runs.train("on", (), "--resume", str(runs.folder / "run"), "--set", "train.steps=14", *float16)
    (event,) = [event["data"] for event in runs.events("on") if "scale" in event["kind"]]
    assert event == {"was": 16.0, "scale": 32.0}
    assert not [event for event in runs.events("run") if event["kind"].startswith("updates_")]


def test_a_row_is_one_over_resumed_runs(runs: Runs) -> None:
    """The second ends within what the first began, and has no good checkpoint of its own to offer the third."""
    runs.train("first", skipped=range(4, 20))
    good = f"{runs.folder / 'first'}@2"
    at = str(runs.folder / "first")
    for name, steps in (("second", 14), ("third", 16)):
        screen = runs.train(name, range(20), "--resume", at, "--set", f"train.steps={steps}")
        at = str(runs.folder / name)
        begun, ended = runs.notes(name)
        assert f"was saved in a row of skipped updates; --resume {good} goes on from the last good state" in begun
        assert begun in screen
        assert ended.endswith(f"the last good checkpoint is {good}")
        assert not [event for event in runs.events(name) if event["kind"] == "updates_skipped"]


def test_what_is_passed_over_is_told(runs: Runs) -> None:
    runs.train("run")
    place, store = runs.folder / "run", runs.store("run")
    (store.folder(12) / MANIFEST).write_text("{}")
    store.folder(14).mkdir()
    screen = runs.train("on", (), "--resume", str(place))
    damaged = "the checkpoint of step 12 is damaged: it is no JSON of a manifest; this run goes on from an earlier one"
    assert damaged in screen
    assert "passed over at step 14 note its save was not finished" in screen
    assert runs.notes("on") == [f"{damaged}, of step 10"]
    assert runs.events("on")[1]["kind"] == "warning"
    runs.train("asked", (), "--resume", f"{place}@10")
    assert runs.notes("asked") == []


def test_a_run_that_goes_on_may_be_read(runs: Runs) -> None:
    runs.train("run")
    claim = Claim.take(runs.folder / "run", "--run-dir")
    runs.train("on", (), "--resume", f"{runs.folder / 'run'}@10")
    (note,) = runs.notes("on")
    assert f"{runs.folder / 'run'} is written by process" in note
    claim.release()


def test_a_run_that_lost_its_storage_writes_no_more(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = runs.folder / "storage" / "run"
    taken = itertools.count()

    def totals(step: int) -> dict[str, object]:
        if step == 6 and not next(taken):
            (place / ".claim-1").rename(place / ".claim-2")
            (place / ".claim-2").write_text((place / ".claim-2").read_text().replace('"home":"', '"home":"not '))
            (place / "step-00000099").mkdir()
        return {}

    script(monkeypatch, fingerprints=SAME, totals=totals)
    storage = f"checkpoint={{every: 2, storage: {place.parent}}}"
    assert run(["train", str(runs.job), "--run-dir", str(runs.folder / "run"), "--set", storage]) == 1
    screen = capsys.readouterr().err
    assert "checkpoint.storage" in screen
    assert "lost the folder to process" in screen
    assert (place / "step-00000099").exists(), "another run may be saving it"
    assert (place / ".claim-2").exists()
    assert 8 not in CheckpointStore(place).steps()
    assert len(list(read(runs.folder / "run" / METRICS))) < 12
