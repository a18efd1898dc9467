"""What is told of the checkpoint that a run goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.resume import ResumePoint
from hetero.checkpoint.store import CheckpointStore
from hetero.job.file.load import load_job
from hetero.job.run.claim import Claim
from hetero.job.run.resuming import resume_notices, skips_of
from tests.architecture.tree import ROOT

JOB = load_job(ROOT / "configs" / "runs" / "auto.yaml")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def save(store: CheckpointStore, step: int, **scalars: int) -> None:
    store.begin(step)
    run = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={}, scalars={**scalars})
    store.commit(step, run, [])


def told(text: str) -> list[tuple[str, str]]:
    return [(notice.kind, notice.facts["note"]) for notice in resume_notices(JOB, ResumePoint.parse(text))]


def test_of_a_good_one_nothing_is_told(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 2, updates=2)
    save(store, 4, updates=3, skips=1, skipping=False)
    assert told(str(tmp_path)) == told(f"{tmp_path}@2") == []


def test_a_row_of_skipped_updates_is_told_with_the_last_good_one(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 2, updates=2)
    save(store, 6, updates=3, skips=3, skipping=True)
    ((kind, note),) = told(str(tmp_path))
    assert kind == "warning"
    assert f"in a row of skipped updates; --resume {tmp_path}@2 goes on from the last good state" in note
    skips = skips_of(ResumePoint.parse(str(tmp_path)))
    assert (skips.count, skips.in_row) == (3, True)


def test_damage_is_a_warning_and_a_broken_save_is_none(store: CheckpointStore, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save(store, step)
    (store.folder(4) / "manifest.json").write_text("{")
    (store.folder(6) / "manifest.json").unlink()
    damaged, broken = told(str(tmp_path))
    assert damaged[0] == "warning"
    assert damaged[1].startswith("the checkpoint of step 4 is damaged: it is no JSON of a manifest; this run goes on")
    assert broken == ("passed_over", "its save was not finished")
    assert told(f"{tmp_path}@2") == []


def test_a_run_that_still_writes_is_told(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 2)
    claim = Claim.take(tmp_path, "--run-dir")
    ((kind, note),) = told(str(tmp_path))
    assert (kind, f"{tmp_path} is written by process" in note) == ("warning", True)
    claim.release()
