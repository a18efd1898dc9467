"""TCP connections of a library's whose peers have yet to prove themselves, and what they may take until then."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from bridge.loop import Loop

LIMIT_S = 5.0  # until the proof
_MOST = 256  # at a time; when more come, those go that have had the most time
_MOST_BYTES = 64 << 10  # from each; a handshake has less than two thousand
_LOOK_S = 0.02
_RECEIVED = struct.Struct("=128xQ")  # `tcpi_bytes_received` of `struct tcp_info`, Linux 4.1


class _Guest(NamedTuple):
    """`end` is a descriptor of our own, for the library's may be another connection's at any time."""

    end: socket.socket
    address: str
    since: float


class Probation:
    """Ends at once whoever takes too much: its library sees a connection that the other side has closed.

    cut  told of each that was ended, by descriptor and address, and why
    """

    def __init__(self, loop: Loop, cut: Callable[[int, str, str], object]) -> None:
        self._loop, self._cut = loop, cut
        self._guests: dict[int, _Guest] = {}  # in the order of arrival
        self._looks = False

    def begin(self, fd: int) -> None:
        """A connection is there, unless it has gone already."""
        self.end(fd)
        with contextlib.suppress(OSError):
            end = _another_end(fd)
            self._guests[fd] = _Guest(end, _address(end), time.monotonic())
        if len(self._guests) > _MOST:
            self._end_by_force(next(iter(self._guests)), f"{_MOST} others came after it and before it proved itself")
        if self._guests and not self._looks:
            self._looks = True
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look)

    def end(self, fd: int) -> str:
        """The peer has proved itself or has gone. Gives its address, or "" if it was not on probation."""
        guest = self._guests.pop(fd, None)
        if guest is None:
            return ""
        guest.end.close()
        return guest.address

    def close(self) -> None:
        """All have gone."""
        for fd in list(self._guests):
            self.end(fd)

    def _look(self) -> None:
        late = time.monotonic() - LIMIT_S
        for fd, guest in list(self._guests.items()):
            if guest.since < late:
                self._end_by_force(fd, f"no proof of itself within {LIMIT_S:g} s")
            elif _received_bytes(guest.end) > _MOST_BYTES:
                self._end_by_force(fd, f"more than {_MOST_BYTES} bytes before it proved itself")
        self._looks = bool(self._guests)
        if self._looks:
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look)

    def _end_by_force(self, fd: int, cause: str) -> None:
        with contextlib.suppress(OSError):
            self._guests[fd].end.shutdown(socket.SHUT_RDWR)
        self._cut(fd, self.end(fd), cause)


def hang_up(fd: int) -> None:
    """Ends a TCP connection whose descriptor is a library's, which will find it closed."""
    with contextlib.suppress(OSError), _another_end(fd) as end:
        end.shutdown(socket.SHUT_RDWR)


def _another_end(fd: int) -> socket.socket:
    """A descriptor of our own for a TCP connection. Raises OSError if it has gone."""
    ours = os.dup(fd)
    try:
        end = socket.socket(fileno=ours)
    except OSError:
        os.close(ours)
        raise
    try:
        end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO)
        end.getpeername()
    except OSError:
        end.close()
        raise
    return end


def _address(end: socket.socket) -> str:
    host, port, *_ = end.getpeername()
    return f"{host.removeprefix('::ffff:')}:{port}"


def _received_bytes(end: socket.socket) -> int:
    nbytes: int = _RECEIVED.unpack(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size))[0]
    return nbytes
