from __future__ import annotations

from pathlib import Path

import pytest

from hetero.errors import ExplainedError
from hetero.job.errors import FolderLost, JobError
from hetero.job.run.refusal import refusable
from hetero.monitoring.journal import EVENTS


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _be_refused(run_dir: Path, storage: Path) -> None:
    with refusable(run_dir, storage):
        (run_dir / "data").mkdir()
        (run_dir / "data" / "tokens.bin").touch()
        raise ExplainedError("key", 1, "rule", "remedy")


def test_a_mistake_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "note").touch()
    before = tree(tmp_path)
    for run_dir, storage in (("there", "new/storage"), ("new/run", "there"), ("new/run", "new/run"), ("new", "new/x")):
        with pytest.raises(ExplainedError):
            _be_refused(tmp_path / run_dir, tmp_path / storage)
        assert tree(tmp_path) == before


def test_a_run_leaves_what_it_wrote_and_no_claim(tmp_path: Path) -> None:
    with refusable(tmp_path / "run", tmp_path / "storage"):
        (tmp_path / "run" / "metrics.jsonl").touch()
    assert tree(tmp_path) == ["run", "run/metrics.jsonl", "storage"]


@pytest.mark.parametrize("shared", ["run", "storage"])
def test_who_comes_second_takes_nothing_away_from_the_first(tmp_path: Path, shared: str) -> None:
    first, second = ({name: tmp_path / one / name for name in ("run", "storage")} for one in ("first", "second"))
    second[shared] = first[shared]
    with refusable(first["run"], first["storage"]):
        (first[shared] / "mine").touch()
        before = tree(tmp_path)
        with pytest.raises(JobError) as error, refusable(second["run"], second["storage"]):
            pass
        assert error.value.key == {"run": "--run-dir", "storage": "checkpoint.storage"}[shared]
        assert tree(tmp_path) == before


def test_a_folder_that_a_run_used_up_after_the_first_look_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That run was over before ours had its claim."""
    from hetero.job.run.claim import Claim

    take = Claim.take

    def late(folder: Path, key: str) -> Claim:
        with refusable(folder):
            (folder / "metrics.jsonl").touch()
        return take(folder, key)

    monkeypatch.setattr(Claim, "take", lambda folder, key: monkeypatch.undo() or late(folder, key))
    with pytest.raises(JobError, match="holds a run already"), refusable(tmp_path / "run"):
        pass
    assert tree(tmp_path / "run") == ["metrics.jsonl"]


def test_the_message_about_a_used_folder_says_who_writes_there(tmp_path: Path) -> None:
    with refusable(tmp_path):
        (tmp_path / "job.yaml").touch()
        with pytest.raises(JobError, match=r"holds a run already.*; it is written by process"), refusable(tmp_path):
            pass


def test_a_folder_that_was_lost_is_noticed(tmp_path: Path) -> None:
    with refusable(tmp_path / "run", tmp_path / "storage") as held:
        held.check(thoroughly=True)
        (tmp_path / "storage" / ".claim-1").unlink()
        held.check()
        with pytest.raises(FolderLost, match="its claim was removed"):
            held.check(thoroughly=True)
        with pytest.raises(FolderLost):
            held.check()
        assert held.lost


def test_a_mistake_takes_nothing_away_from_who_has_the_folder_by_then(tmp_path: Path) -> None:
    with pytest.raises(ExplainedError):
        _lose_and_be_refused(tmp_path / "run")
    assert tree(tmp_path / "run") == ["checkpoint"]


def _lose_and_be_refused(run_dir: Path) -> None:
    with refusable(run_dir):
        (run_dir / ".claim-1").unlink()
        (run_dir / "checkpoint").touch()
        raise ExplainedError("key", 1, "rule", "remedy")


def _interrupted(made: Path, text: str = "") -> None:
    made.write_text(text)
    raise KeyboardInterrupt


def test_before_the_first_event_nothing_is_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "a"
    for made in ("data", EVENTS):
        with pytest.raises(KeyboardInterrupt), refusable(run_dir):
            _interrupted(run_dir / made)
        assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(KeyboardInterrupt), refusable(tmp_path):
        _interrupted(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_after_it_all_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), refusable(tmp_path):
        _interrupted(tmp_path / EVENTS, "{}\n")
    assert (tmp_path / EVENTS).read_text() == "{}\n"
