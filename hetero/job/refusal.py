"""What a run that cannot be leaves behind: nothing of its own, and one error."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hetero.errors import is_disk_full, is_user_mistake
from hetero.job.errors import JobError
from hetero.monitoring.journal import EVENTS, METRICS


@contextlib.contextmanager
def refusable(run_dir: Path, storage: Path | None = None) -> Iterator[None]:
    """A user's mistake that shows before the first step leaves `run_dir` and `storage` as they were, and so does an
    interruption before the first event.

    Raises JobError where the folder cannot be written, or its disk is full."""
    made = [_Made(folder) for folder in (run_dir, storage) if folder is not None]
    try:
        with _system_errors_explained(run_dir):
            yield
    except (Exception, KeyboardInterrupt) as error:
        last = EVENTS if isinstance(error, KeyboardInterrupt) else METRICS if is_user_mistake(error) else None
        if last and not os.path.exists(run_dir / last):
            for folder in made:
                folder.remove()
        raise


class _Made:
    """What comes into being at and below a folder from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._missing = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
        self._before = set(folder.iterdir()) if os.path.isdir(folder) else set()

    def remove(self) -> None:
        """Parents that were made too go only while they hold nothing else."""
        with contextlib.suppress(OSError):
            for path in set(self._folder.iterdir()) - self._before:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            for path in self._missing:
                path.rmdir()


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


def make_run_dir(run_dir: Path) -> None:
    """Raises JobError if it cannot be made or written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        if is_disk_full(error):
            raise
        rule = f"must be a folder that can be written ({getattr(error, 'strerror', None) or error})"
        raise JobError("--run-dir", str(run_dir), rule, "name another folder") from None
