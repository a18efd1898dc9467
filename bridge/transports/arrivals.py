"""Connections that a library accepts and does not tell of, found among the descriptors of this process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from bridge.loop import Loop
from bridge.transports.probation import Probation, address_of, borrowed

_DESCRIPTORS = "/proc/self/fd"
_LOOK_S = 0.02  # which takes a tenth of a millisecond


class Arrivals:
    """Puts whoever connects to a port of ours on probation, soon after he has come; see Probation for `cut`."""

    def __init__(self, loop: Loop, port: int, cut: Callable[[str, str], object]) -> None:
        self._loop, self._port = loop, port
        self._probation = Probation(loop, lambda fd, address, cause: cut(address, cause))
        self._known: dict[int, tuple[int, str]] = {}  # inode of each descriptor, and who is at the other end
        self._closed = False
        self._look_again()

    def admit(self, address: str) -> None:
        """Who has come from there has shown good credentials."""
        for fd in self._from(address):
            self._probation.admit(fd)

    def trust(self, address: str) -> None:
        """Who has come from there has proved itself."""
        for fd in self._from(address):
            self._probation.end(fd)

    def close(self) -> None:
        self._closed = True
        self._probation.close()

    def _look_again(self) -> None:
        if not self._closed:
            self._look()
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look_again)

    def _look(self) -> None:
        known, self._known = self._known, {}
        for fd in map(int, os.listdir(_DESCRIPTORS)):
            with contextlib.suppress(OSError):
                inode = os.stat(fd).st_ino
                before, address = known.get(fd, (0, ""))
                if inode != before:
                    address = self._caller(fd)
                    if address:
                        self._probation.begin(fd)
                self._known[fd] = inode, address

    def _from(self, address: str) -> list[int]:
        if self._closed:
            return []
        self._look()
        return [fd for fd, (_, known) in self._known.items() if known == address]

    def _caller(self, fd: int) -> str:
        """The address of whoever is connected to our port here, or ""."""
        with contextlib.suppress(OSError), borrowed(fd) as end:
            if end.getsockname()[1] == self._port:
                return address_of(end)
        return ""
