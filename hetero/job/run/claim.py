"""One run at a time writes into a folder, whichever host it runs on. Its claim is a file in that folder:

    .claim-3     who holds the folder; touched every few seconds for as long as that process lives

One of many makes the file, for `O_CREAT | O_EXCL` is atomic, over NFS as well, and its holder alone removes it. The
claim of a dead holder is not removed and made again, which two could do at once: whoever makes the next number has it,
and then removes the lower one. So a holder that was thought dead finds its own file gone, which an NFS client cannot
miss: it asks the server whenever it opens a file, but not for what is new in a folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, sleep

from hetero.data.written import CLAIM
from hetero.interrupts import check
from hetero.job.errors import FolderLost, JobError
from hetero.job.run.holder import ClaimHolder, Seen, look

BEAT_S = 5.0
SILENT_S = 60.0
"""A holder on another host that has given no sign of life for so long, by the watcher's own clock, is dead."""
LOOK_S = 0.5
logger = logging.getLogger(__name__)


def held_by(folder: Path) -> Seen | None:
    """The claim on a folder, unless its holder is known to be dead. Waits for nothing."""
    return next((seen for seen in reversed(_claims(folder)) if seen.lives is not False), None)


class Claim:
    """What this process holds, until `release`. A thread gives the signs of life."""

    def __init__(self, path: Path, content: bytes, key: str, taken_from: Seen | None) -> None:
        self.path, self.taken_from = path, taken_from
        self._content, self._key = content, key
        self._lost, self._beaten = False, _now()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, folder: Path, key: str) -> Claim:
        """Makes the folder where it is missing and claims it. `key` is what the user named it by.

        Raises JobError if a run holds it, which takes some seconds to see of one on another host, and OSError if it
        cannot be written."""
        rivals: set[Path] = set()
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            others = _claims(folder, rivals)
            if all(_ended(other, key) for other in others) and (made := _next(folder, others, rivals)):
                return cls(*made, key, others[-1] if others else None)

    @property
    def is_ours(self) -> bool:
        """As far as is known; asks the file system if the last sign of life was long ago, as after a suspension."""
        if _now() - self._beaten > 2 * BEAT_S:
            self._refresh()
        return not self._lost

    def check(self) -> None:
        """Asks the file system. Raises FolderLost if another run has taken the folder over."""
        self._refresh()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raises FolderLost if it is known that another run has the folder."""
        if self.is_ours:
            return
        now = held_by(self.path.parent)
        rule = "its claim was removed, or the folder with it"
        remedy = "see who removes files there, and go on from a checkpoint with --resume, if there is one yet"
        if now:
            rule = f"this process gave no sign of life and lost the folder to {now}"
            remedy = "leave the folder to that run, and go on from a checkpoint of this one with --resume"
        raise FolderLost(self._key, str(self.path.parent), rule, remedy)

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == self._content:
                self.path.unlink()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S) and not self._lost:
            self._refresh()

    def _refresh(self) -> None:
        try:
            if self.path.read_bytes() != self._content:
                self._lost = True
            else:
                os.utime(self.path)
                self._beaten = _now()
        except FileNotFoundError:
            self._lost = True
        except OSError as error:  # of a file system that is away for now
            logger.warning("no sign of life in %s: %s", self.path, error)


def _ended(other: Seen, key: str) -> bool:
    """Whether a claim's holder is dead; False where the claim has gone meanwhile. Raises JobError if it lives."""
    lives = other.lives
    if lives is None:
        logger.warning("%s may be held by %s: watching for %g s", other.path.parent, other, SILENT_S)
        lives = _watched(other)
    if lives is None:
        return False
    if lives:
        rule = f"another run writes there: {look(other.path) or other}"
        remedy = "wait until that run has ended, end it, or name another folder"
        raise JobError(key, str(other.path.parent), rule, remedy)
    return True


def _next(folder: Path, others: Sequence[Seen], rivals: set[Path]) -> tuple[Path, bytes] | None:
    """A claim in place of others, whose holders are dead. None if somebody came between; the file of whoever made the
    same one earlier is added to `rivals`."""
    path = folder / f".claim-{max((other.number for other in others), default=0) + 1}"
    content = ClaimHolder.this().model_dump_json().encode()
    try:
        _make(path, content)
    except FileNotFoundError:  # another run was refused, and took its folder away
        return None
    except FileExistsError:
        rivals.add(path)
        return None
    try:
        if {seen.path for seen in _claims(folder)} - {path, *(other.path for other in others)}:
            path.unlink(missing_ok=True)  # who saw the folder at another moment has another number
            return None
        for other in others:
            other.path.unlink(missing_ok=True)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path, content


def _watched(first: Seen) -> bool | None:
    """Whether a claim changes while one looks at it; None if it goes. Two hosts' clocks are never compared."""
    began = _now()
    while True:
        check()
        late = _now() - began >= SILENT_S  # asked before the look: whoever is suspended here looks once more
        seen = look(first.path)
        if seen is None:
            return None
        if seen != first:
            return True
        if late:
            return False
        sleep(LOOK_S)


def _claims(folder: Path, known: set[Path] | frozenset[Path] = frozenset()) -> list[Seen]:
    """By number. `known` are some that a network file system's listing may not show yet."""
    with contextlib.suppress(OSError, ValueError):
        known = known | {path for path in folder.iterdir() if CLAIM.fullmatch(path.name)}
    found = [seen for path in known if (seen := look(path)) is not None]
    return sorted(found, key=lambda seen: seen.number)


def _make(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with open(handle, "wb") as file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _now() -> float:
    """Goes on while the machine is suspended."""
    return clock_gettime(CLOCK_BOOTTIME)
