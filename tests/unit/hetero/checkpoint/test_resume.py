from __future__ import annotations

from pathlib import Path

import pytest

from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.resume import ResumePoint, checkpoint_folder
from hetero.checkpoint.store import CheckpointStore

RUN = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={})


def run_with(folder: Path, *steps: int) -> Path:
    store = CheckpointStore(folder / "checkpoints")
    for step in steps:
        store.begin(step)
        store.commit(step, RUN, [])
    return folder


def test_a_run_alone_means_its_last_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10, 20)
    assert ResumePoint.parse(str(run)) == ResumePoint(run, 20)
    assert ResumePoint.parse(f"{run}@10") == ResumePoint(run, 10)
    assert str(ResumePoint.parse(f"{run}@10")) == f"{run}@10"
    assert ResumePoint.parse(f"{run}").store.latest() == 20


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run@5", 10)
    assert ResumePoint.parse(str(run)) == ResumePoint(run, 10)
    assert ResumePoint.parse(f"{run}@10") == ResumePoint(run, 10)


def test_a_step_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 20, 10)
    with pytest.raises(CheckpointError) as error:
        ResumePoint.parse(f"{run}@15")
    assert (error.value.key, error.value.value) == ("--resume", f"{run}@15")
    assert error.value.remedy == f"use one of {run}@10, {run}@20"


def test_what_is_newer_and_cannot_be_used_is_known(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10, 20, 30)
    store = CheckpointStore(run / "checkpoints")
    (store.folder(30) / "manifest.json").write_text("")
    store.folder(40).mkdir()
    store.folder(5).mkdir()
    point = ResumePoint.parse(str(run))
    assert (point.step, point.is_chosen) == (20, False)
    assert [(fault.step, fault.interrupted) for fault in point.newer_faults()] == [(30, False), (40, True)]
    with pytest.raises(CheckpointError, match=r"no whole checkpoint of step 30 in .*; step 30: it is no JSON"):
        ResumePoint.parse(f"{run}@30")
    for step in (10, 20):
        (store.folder(step) / "manifest.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no whole checkpoint in .*; step 20: its save was not finished; step 30"
    ):
        ResumePoint.parse(str(run))


def test_where_to_go_back_to_is_of_the_run_before_if_need_be(tmp_path: Path) -> None:
    first = run_with(tmp_path / "first", 10)
    second = CheckpointStore(tmp_path / "second" / "checkpoints")
    scalars = {"updates": 10, "skips": 3, "last_good": f"{first}@10"}
    second.begin(20)
    second.commit(20, RUN.model_copy(update={"scalars": scalars}), [])
    point = ResumePoint.parse(str(tmp_path / "second"))
    assert point.last_good(10) == f"{first}@10"
    (first / "checkpoints" / "step-00000010" / "manifest.json").unlink()
    assert point.last_good(10) is None


@pytest.mark.parametrize(("text", "rule"), [("{}/no", "no folder"), ("{}@last", "whole number"), ("{}", "no whole")])
def test_what_cannot_be_resumed_is_explained(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(CheckpointError, match=rule):
        ResumePoint.parse(text.format(tmp_path))


def test_checkpoints_lie_in_the_run_directory(tmp_path: Path) -> None:
    assert checkpoint_folder(tmp_path / "run", None) == tmp_path / "run" / "checkpoints"


def test_with_storage_the_run_directory_links_to_it(tmp_path: Path) -> None:
    storage, run = tmp_path / "shared", tmp_path / "run"
    for _ in range(2):
        assert checkpoint_folder(run, str(storage)) == storage / "run"
    CheckpointStore(storage / "run").begin(3)
    CheckpointStore(storage / "run").commit(3, RUN, [])
    assert checkpoint_folder(run, str(storage)) == checkpoint_folder(run, None) == storage / "run"
    assert ResumePoint.parse(str(run)).step == 3


def test_two_runs_of_one_name_do_not_share_storage(tmp_path: Path) -> None:
    storage = tmp_path / "shared"
    checkpoint_folder(tmp_path / "one" / "run", str(storage))
    CheckpointStore(storage / "run").begin(3)
    with pytest.raises(CheckpointError, match="another run"):
        checkpoint_folder(tmp_path / "two" / "run", str(storage))


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be made"):
        checkpoint_folder(tmp_path / "run", str(tmp_path / "file"))
