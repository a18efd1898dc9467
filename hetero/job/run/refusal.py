"""The folders that a run writes into: its own while it lasts, and as they were if the run cannot be."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from hetero.checkpoint.errors import CheckpointError
from hetero.errors import is_disk_full, is_user_mistake
from hetero.job.errors import FolderLost, JobError
from hetero.job.run.claim import Claim, held_by
from hetero.monitoring.journal import EVENTS, METRICS


@contextlib.contextmanager
def refusable(run_dir: Path, storage: Path | None = None) -> Iterator[ClaimedFolders]:
    """Claims `run_dir` and `storage`, made where they are missing. A user's mistake that shows before the first step
    leaves both as they were, and so does an interruption before the first event.

    Raises JobError where the run directory cannot be written, its disk is full, it holds another run, or a run that
    lives holds one of both; CheckpointError for storage that cannot be made."""
    with _system_errors_explained(run_dir), ClaimedFolders() as claimed:
        try:
            claimed.add(run_dir, _claim_run_dir)
            if storage is not None and storage.resolve() != run_dir.resolve():
                claimed.add(storage, _claim_storage)
            yield claimed
        except (Exception, KeyboardInterrupt) as error:
            if _leaves_nothing(error, run_dir):
                claimed.empty()
            raise


def _leaves_nothing(error: BaseException, run_dir: Path) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return not os.path.exists(run_dir / EVENTS) or os.path.getsize(run_dir / EVENTS) == 0
    return is_user_mistake(error) and not os.path.exists(run_dir / METRICS)


class ClaimedFolders:
    """Folders that this run alone writes into until the end of the `with` block."""

    def __init__(self) -> None:
        self._folders: list[_ClaimedFolder] = []

    def add(self, folder: Path, claim: Callable[[Path], Claim]) -> None:
        self._folders.append(_ClaimedFolder(folder, claim))

    @property
    def taken_from(self) -> list[str]:
        """The dead holders whose claims were in the way."""
        claims = [one.claim for one in self._folders]
        return [f"{claim.path.parent} was held by {claim.taken_from}" for claim in claims if claim.taken_from]

    @property
    def lost(self) -> bool:
        return not all(one.claim.is_ours for one in self._folders)

    def check(self, thoroughly: bool = False) -> None:
        """Raises FolderLost if another run has taken one over; `thoroughly` asks the file systems."""
        for one in self._folders:
            if thoroughly:
                one.claim.check()
            else:
                one.claim.raise_if_lost()

    def empty(self) -> None:
        """Removes what came into being in the folders, and the folders, once they are released, if they were made."""
        for one in self._folders:
            one.empty()

    def __enter__(self) -> ClaimedFolders:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._folders:
            one.release()


class _ClaimedFolder:
    """One that is held, and what was there before."""

    def __init__(self, folder: Path, claim: Callable[[Path], Claim]) -> None:
        self._folder = folder
        self._missing = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
        self._refused = False
        try:
            self.claim = claim(folder)
        except BaseException:
            self._remove_made()
            raise
        self._before = set(folder.iterdir())

    def empty(self) -> None:
        self._refused = True
        with contextlib.suppress(OSError, FolderLost):
            self.claim.check()
            for path in set(self._folder.iterdir()) - self._before:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def release(self) -> None:
        self.claim.release()
        if self._refused:
            self._remove_made()

    def _remove_made(self) -> None:
        """Parents too, and only while they hold nothing else."""
        with contextlib.suppress(OSError):
            for path in self._missing:
                path.rmdir()


def refuse_used(run_dir: Path) -> None:
    """Raises JobError if the folder holds a run, whether it goes on or not."""
    if any(os.path.lexists(run_dir / name) for name in (METRICS, EVENTS, "job.yaml")):
        held = held_by(run_dir)
        rule = "holds a run already, and no run overwrites another" + (f"; it is written by {held}" if held else "")
        remedy = f"choose another; --resume {run_dir} continues that run in a new one"
        raise JobError("--run-dir", str(run_dir), rule, remedy)


def _claim_run_dir(run_dir: Path) -> Claim:
    refuse_used(run_dir)
    try:
        claim = Claim.take(run_dir, "--run-dir")
    except (OSError, ValueError) as error:
        if is_disk_full(error):
            raise
        rule = f"must be a folder that can be written ({getattr(error, 'strerror', None) or error})"
        raise JobError("--run-dir", str(run_dir), rule, "name another folder") from None
    try:
        refuse_used(run_dir)  # by a run that was over before the claim, and after the look above
    except JobError:
        claim.release()
        raise
    return claim


def _claim_storage(folder: Path) -> Claim:
    try:
        return Claim.take(folder, "checkpoint.storage")
    except OSError as error:
        rule, remedy = f"the folder cannot be made: {error}", "name a folder that you may write to"
        raise CheckpointError("checkpoint.storage", str(folder), rule, remedy) from error


@contextlib.contextmanager
def _system_errors_explained(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            rule = f"the disk is full, or a limit on file sizes is reached ({error.strerror})"
            remedy = f"make room, then start again; --resume {run_dir} goes on from its last checkpoint, if it has one"
            raise JobError("--run-dir", str(run_dir), rule, remedy) from error
        raise
