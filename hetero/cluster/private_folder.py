"""Folders of this machine that other users can neither enter nor put aside."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hetero.cluster.errors import ClusterError

UNMAPPED = 65534
"""Whom a user namespace does not know: outside of it mostly root."""
PREFIX = "hetero-"
_LONGEST_PATH = 4096


def private_folder(longest: int = _LONGEST_PATH, prefix: str = PREFIX) -> Path:
    """A new folder with mode 0700 and a path of at most so many characters, which is the caller's to remove.

    Lies below TMPDIR if that will do, else below /tmp. Raises ClusterError where neither does."""
    faults = []
    for parent in dict.fromkeys(_places()):
        try:
            for fault in _faults(parent / f"{prefix}12345678", longest):
                raise PermissionError(0, fault)
            return _made(parent, prefix)
        except OSError as error:
            faults.append(f"{parent}: {error.strerror}")
    rule = f"temporary folders must be out of other users' reach ({'; '.join(faults)})"
    raise ClusterError("TMPDIR", os.environ.get("TMPDIR", ""), rule, "set TMPDIR to a short path of a folder of yours")


def kept_folders(prefix: str) -> list[Path]:
    """All private folders whose names begin so, one at least, in an order that is the same for all who ask. They stay.

    There may be several where several were the first to ask. Raises ClusterError as private_folder does."""
    if found := _found(prefix):
        return found
    made = private_folder(prefix=prefix)
    return _found(prefix) or [made]


def _found(prefix: str) -> list[Path]:
    """Other users may make some of this name too, which are none of ours."""
    known = (path for place in set(_places()) for path in place.glob(f"{prefix}*"))
    return sorted(path for path in known if is_private(path) and not any(_faults(path)))


@contextlib.contextmanager
def passing_folder() -> Iterator[Path]:
    """Such a folder, which is gone afterwards with all that is in it."""
    folder = private_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_private(folder: Path) -> bool:
    """Whether it is a folder of this user's, and no link, that nobody else enters."""
    try:
        found = folder.lstat()
    except OSError:  # another user may take away his own at any time
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _places() -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # which says that no place at all can be written
        yield Path(tempfile.gettempdir()).resolve()
    yield Path("/tmp").resolve()


def _faults(place: Path, longest: int = _LONGEST_PATH) -> Iterator[str]:
    """Among them who could put a folder of this path aside, by renaming it or one above, and lay down another."""
    if len(str(place)) > longest:
        yield "its path is too long"
    for folder in place.parents:
        found = folder.stat()
        if found.st_uid not in (0, os.geteuid(), UNMAPPED):
            yield f"{folder} belongs to another user ({found.st_uid})"
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            yield f"others may rename what lies in {folder} (mode {stat.S_IMODE(found.st_mode):o})"


def _made(parent: Path, prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    if not is_private(folder):
        folder.rmdir()
        raise PermissionError(0, "modes of folders do not hold there")
    return folder
