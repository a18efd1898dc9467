"""The one way through a source folder: for training, for packing a job, for looking whether it can be read.

Links are followed wherever they lead. A file or folder is taken once, under its own name if it has one below the
source: links come after all that is really there, in the order of their names, so that no link within the folder
changes the text, and none leads round in circles.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from pathlib import Path

from hetero.data.text_file import TextFile, unreadable
from hetero.data.written import is_run_folder, is_token_file

HIDDEN, NOWHERE, SPECIAL = "hidden", "leading nowhere", "neither file nor folder"
AGAIN, WRITTEN = "there under another name", "written by a run"
_DANGLING = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}


class Walk:
    """What is found at and below a folder: `files` in no order, `omitted` by reason, where a folder counts once, and
    in `leading_out` the names of links out of the folder that were followed.

    Raises DataError, by name, for what cannot be read."""

    def __init__(self, root: Path) -> None:
        self._root, self._real = root, Path(os.path.realpath(root))
        self._seen: set[tuple[int, int]] = set()
        self.files: list[TextFile] = []
        self.omitted: Counter[str] = Counter()
        self.leading_out: list[str] = []
        links = self._descend("")
        while links:
            links = [further for link in sorted(links) for further in self._descend(link)]

    def _descend(self, top: str) -> list[str]:
        """Takes what is at and below `top`, which alone is followed if it is a link; returns the links below it."""
        links, waiting, taken = [], [top], False
        while waiting:
            name = waiting.pop()
            found = self._status(name, follow=name == top)
            if found is None:
                self.omitted[NOWHERE] += 1
            elif stat.S_ISLNK(found.st_mode):
                links.append(name)
            elif self._is_new(found):
                taken |= self._take(name, found, waiting)
        if taken and not Path(os.path.realpath(self._root / top)).is_relative_to(self._real):
            self.leading_out.append(top)
        return links

    def _status(self, name: str, *, follow: bool) -> os.stat_result | None:
        """None for a link that leads nowhere."""
        path = self._root / name
        try:
            return path.stat() if follow else path.lstat()
        except OSError as error:
            if follow and error.errno in _DANGLING:
                return None
            raise unreadable(path, error) from None

    def _is_new(self, found: os.stat_result) -> bool:
        identity = found.st_dev, found.st_ino
        if identity in self._seen:
            self.omitted[AGAIN] += 1
            return False
        self._seen.add(identity)
        return True

    def _take(self, name: str, found: os.stat_result, waiting: list[str]) -> bool:
        """A folder's entries are left to be looked at. Returns whether anything was taken."""
        path = self._root / name
        if stat.S_ISDIR(found.st_mode):
            entries = self._entries(name)
            waiting += entries
            return bool(entries)
        if not stat.S_ISREG(found.st_mode):
            self.omitted[SPECIAL] += 1
        elif is_token_file(path):
            self.omitted[WRITTEN] += 1
        else:
            self.files.append(text_file(path, name, found.st_size))
            return True
        return False

    def _entries(self, name: str) -> list[str]:
        """The names in a folder that count, the last one first."""
        folder = self._root / name
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise unreadable(folder, error) from None
        if is_run_folder(names):
            self.omitted[WRITTEN] += 1
            return []
        shown = [entry for entry in names if not entry.startswith(".")]
        self.omitted[HIDDEN] += len(names) - len(shown)
        return [f"{name}/{entry}" if name else entry for entry in sorted(shown, reverse=True)]


def text_file(path: Path, name: str, size: int) -> TextFile:
    """Raises DataError if it may not be read."""
    if not os.access(path, os.R_OK):
        raise unreadable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return TextFile(name, path, size)
