from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hetero.errors import exit_code
from hetero.foreign import open_plain
from hetero.job.errors import FolderLost, JobError
from hetero.job.run import claim as claims
from hetero.job.run.claim import Claim, held_by
from hetero.job.run.holder import ClaimHolder, started_at


def put(folder: Path, number: int, **facts: str | int) -> Path:
    """The claim of a process like this one but for some facts."""
    folder.mkdir(exist_ok=True)
    path = folder / f".claim-{number}"
    path.write_text(ClaimHolder.this().model_copy(update=facts).model_dump_json())
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the holder's and the watcher's clock show; a watcher that sleeps moves it on."""
    shows = [1000.0]
    monkeypatch.setattr(claims, "_now", lambda: shows[0])
    monkeypatch.setattr(claims, "sleep", lambda seconds: shows.__setitem__(0, shows[0] + seconds))
    return shows


def test_what_is_released_leaves_nothing(folder: Path) -> None:
    claim = Claim.take(folder, "--run-dir")
    assert names(folder) == [".claim-1"]
    claim.check()
    claim.release()
    assert names(folder) == []


def test_who_comes_second_is_told_who_is_there(folder: Path) -> None:
    claim = Claim.take(folder, "--run-dir")
    with pytest.raises(JobError) as error:
        Claim.take(folder, "--run-dir")
    assert (error.value.key, error.value.value, exit_code(error.value)) == ("--run-dir", str(folder), 2)
    holder = ClaimHolder.this()
    assert f"process {os.getpid()} on host {holder.host} since 20" in error.value.rule
    assert "last sign of life 20" in error.value.rule
    claim.release()


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_one_has_it(folder: Path, dead: bool) -> None:
    if dead:
        put(folder, 4, started="1")

    def attempt(_: int) -> Claim | JobError:
        try:
            return Claim.take(folder, "--run-dir")
        except JobError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(8)))
    claim, *others = sorted(found, key=lambda one: isinstance(one, JobError))
    assert isinstance(claim, Claim)
    assert all(isinstance(other, JobError) for other in others)
    assert names(folder) == [claim.path.name]
    claim.check()
    claim.release()


def test_a_dead_process_of_this_host_is_followed_at_once(folder: Path) -> None:
    with subprocess.Popen(["true"]) as process:  # nobody has asked what became of it
        before = put(folder, 1, pid=process.pid, started=started_at(process.pid) or "1")
        while started_at(process.pid) is not None:
            time.sleep(0.01)
        claim = Claim.take(folder, "--run-dir")
    assert f"process {process.pid}" in str(claim.taken_from)
    assert (names(folder), before.exists()) == ([".claim-2"], False)
    claim.release()


def test_another_process_with_the_number_of_the_dead_one_does_not_stand_for_it(folder: Path) -> None:
    put(folder, 1, started="1")
    assert held_by(folder) is None
    Claim.take(folder, "--run-dir").release()


def test_a_process_that_is_hidden_from_us_is_not_dead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError(pid)

    put(folder, 1, pid=2**22 + 1)  # there is none
    assert held_by(folder) is None
    monkeypatch.setattr(os, "kill", refuse)
    assert held_by(folder) is not None


@pytest.mark.parametrize("content", ["elsewhere", "nothing"])
def test_a_silent_holder_on_another_host_is_dead_after_a_while(folder: Path, clock: list[float], content: str) -> None:
    path = put(folder, 7, home="elsewhere")
    if content == "nothing":
        path.write_text("")
    assert held_by(folder) is not None
    claim = Claim.take(folder, "--run-dir")
    assert clock[0] >= 1000 + claims.SILENT_S
    assert names(folder) == [".claim-8"]
    claim.release()


@pytest.mark.parametrize("pause", [1.0, 1000.0], ids=["awake", "suspended"])
def test_a_holder_on_another_host_that_gives_a_sign_lives(
    folder: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """However long the watcher itself stood still, and whatever the other host's clock shows."""
    path = put(folder, 1, home="elsewhere")

    def sleep(_: float) -> None:
        clock[0] += pause
        os.utime(path, (5, 5))

    monkeypatch.setattr(claims, "sleep", sleep)
    with pytest.raises(JobError, match="another run writes there"):
        Claim.take(folder, "--run-dir")
    assert names(folder) == [".claim-1"]


def test_a_claim_that_may_not_be_read_is_watched(
    folder: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, 1)

    def refuse(asked: Path) -> object:
        if asked == path:
            raise PermissionError
        return open_plain(asked)

    monkeypatch.setattr("hetero.job.run.holder.open_plain", refuse)
    assert "has not said who it is" in str(held_by(folder))
    claim = Claim.take(folder, "--run-dir")
    assert (names(folder), clock[0] >= 1000 + claims.SILENT_S) == ([".claim-2"], True)
    claim.release()


def test_a_pipe_for_a_claim_keeps_nobody_waiting(folder: Path, clock: list[float]) -> None:
    folder.mkdir()
    os.mkfifo(folder / ".claim-1")
    assert "has not said who it is" in str(held_by(folder))
    claim = Claim.take(folder, "--run-dir")
    assert names(folder) == [".claim-2"]
    claim.release()


@pytest.mark.parametrize("facts", [{"since": 1e30}, {"pid": 1 << 80}, {"pid": 0}])
def test_what_no_process_says_of_itself_is_nobodys_word(folder: Path, facts: dict[str, int]) -> None:
    put(folder, 1, **facts)
    assert "has not said who it is" in str(held_by(folder))


def test_a_claim_that_goes_while_it_is_watched_is_no_hindrance(
    folder: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, 1, home="elsewhere")
    monkeypatch.setattr(claims, "sleep", lambda _: path.unlink())
    Claim.take(folder, "--run-dir").release()
    assert clock[0] < 1000 + claims.SILENT_S


def test_a_holder_that_was_thought_dead_learns_who_has_the_folder(
    folder: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 500.0)  # it gives no sign by itself, however long this takes
    claim = Claim.take(folder, "checkpoint.storage")
    claim.path.unlink()
    put(folder, 2, host="another", home="elsewhere")
    claim.raise_if_lost()  # it has just given a sign of life
    clock[0] += 2000
    for ask in (claim.raise_if_lost, claim.check):
        with pytest.raises(FolderLost, match="on host another") as error:
            ask()
    assert (error.value.key, exit_code(error.value), claim.is_ours) == ("checkpoint.storage", 1, False)
    claim.release()
    assert names(folder) == [".claim-2"]


def test_a_file_of_the_same_number_is_not_the_owners(folder: Path) -> None:
    claim = Claim.take(folder, "--run-dir")
    put(folder, 1, nonce="of another")
    with pytest.raises(FolderLost):
        claim.check()
    claim.release()
    assert names(folder) == [".claim-1"]


def test_signs_of_life_are_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    claim = Claim.take(folder, "--run-dir")
    os.utime(claim.path, (5, 5))
    until = time.monotonic() + 60
    while claim.path.stat().st_mtime < 10 and time.monotonic() < until:
        time.sleep(0.01)
    assert claim.path.stat().st_mtime > 10
    claim.release()


def test_two_that_saw_different_claims_do_not_both_have_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder as a slow one saw it has been released and claimed anew before the slow one makes its own."""
    old = put(folder, 3, started="1")
    make = claims._make

    def slowly(path: Path, content: bytes) -> None:
        if old.exists():
            old.unlink()
            put(folder, 1)
        make(path, content)

    monkeypatch.setattr(claims, "_make", slowly)
    with pytest.raises(JobError, match="another run writes there"):
        Claim.take(folder, "--run-dir")
    assert names(folder) == [".claim-1"]


def test_a_folder_that_is_taken_away_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = claims._make

    def once(path: Path, content: bytes) -> None:
        monkeypatch.setattr(claims, "_make", make)
        folder.rmdir()
        make(path, content)

    monkeypatch.setattr(claims, "_make", once)
    Claim.take(folder, "--run-dir").release()
