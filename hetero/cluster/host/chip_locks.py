"""By what agents on one node settle which chip is whose.

A chip has a name among the kernel's, which goes with its owner and tells whose he is. Any user of the machine may take
it. So a lock, in a folder that no other user enters, says which of this user's agents has the chip.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import socket
import struct
from pathlib import Path
from urllib.parse import quote

from hetero.cluster.private_folder import kept_folders

_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group
ROOT = 0


class Name:
    """The chip's name, if `is_ours`. Otherwise `other` says which other user has it, and is empty for one's own agents
    and root's."""

    def __init__(self, family: str, device: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self.other = ""
        name = f"\0hetero-chip-{family}-{device}"
        try:
            self._socket.bind(name)
            self._socket.listen(1)  # accepts nobody: the kernel tells who listens
            self.is_ours = True
        except OSError:
            self.is_ours, self.other = False, _other(name)
            self.close()

    def close(self) -> None:
        self._socket.close()


class Lock:
    """The chip's lock among this user's agents, if `is_ours`."""

    def __init__(self, family: str, device: str) -> None:
        self._files: list[int] = []
        try:
            for folder in kept_folders("hetero-chips-"):
                self._take(folder / quote(f"{family}-{device}", safe=""))
            self.is_ours = True
        except BlockingIOError:
            self.is_ours = False
            self.close()

    def _take(self, path: Path) -> None:
        """Locks a folder, which those who clean temporary files then leave alone."""
        path.mkdir(exist_ok=True)
        self._files.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        fcntl.flock(self._files[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()


def _other(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as asker:
        asker.setblocking(False)
        try:
            asker.connect(name)
            told = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:  # ours listen, so it is a stranger's; a full queue is told apart by the lock
            return "another user"
    process, user, _ = _CREDENTIALS.unpack(told)
    return "" if user in (ROOT, os.geteuid()) else f"user {_user(user)} (process {process})"


def _user(number: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)
