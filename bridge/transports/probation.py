"""TCP connections of a library's whose peers have yet to prove themselves, and what they may take until then."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from bridge.system.linux import reset_connection, take_all_segments
from bridge.system.loop import Loop

LIMIT_S = 5.0  # until the proof
MOST_BYTES = 16 << 10  # from each; a handshake has less than two thousand
MOST_SEGMENT_BYTES = 2 << 10  # with TCP's headers; the pieces of a handshake have a few hundred, unless names are long
MOST = 64  # at a time who have shown nothing; when more come, those go that have had the most time
_LOOK_S = 0.5  # at those that are silent
_RECEIVED = struct.Struct("=128xQ")  # `tcpi_bytes_received` of `struct tcp_info`, Linux 4.1


class _Unproven(NamedTuple):
    """A connection on probation."""

    address: str
    since: float


class Probation:
    """Ends at once whoever takes too much: its library sees a connection that the other side has closed.

    Connections are known by the library's descriptors, which may be another's at any time: hence their addresses. They
    are looked at whenever something comes.

    Until then a listener's connections have small segments alone (`take_small_segments`), so that a library that takes
    connections by itself gets little until the look at them comes.

    cut         told of each that was ended, by descriptor and address, and why
    most_bytes  from each
    """

    def __init__(self, loop: Loop, cut: Callable[[int, str, str], object], most_bytes: int = MOST_BYTES) -> None:
        self._loop, self._cut, self._most_bytes = loop, cut, most_bytes
        self._unproven: dict[int, _Unproven] = {}  # in the order of arrival
        self._admitted: set[int] = set()
        self._news = select.epoll()
        self._looks = False
        loop.watch(self._news.fileno(), self._on_news)

    def begin(self, fd: int) -> None:
        """A connection is there, unless it has gone already."""
        self.end(fd)
        if not (address := address_at(fd)):
            return
        self._unproven[fd] = _Unproven(address, time.monotonic())
        with contextlib.suppress(OSError):
            self._news.register(fd, select.EPOLLIN | select.EPOLLET)
        if len(self._unproven) - len(self._admitted) > MOST:
            first = next(fd for fd in self._unproven if fd not in self._admitted)
            self._end_by_force(first, f"{MOST} others came after it and before it showed anything")
        if not self._looks:
            self._look()

    def admit(self, fd: int) -> None:
        """It has shown good credentials: it is none of those that have to go when many come."""
        if fd in self._unproven:
            self._admitted.add(fd)

    def trust(self, fd: int) -> None:
        """The peer has proved itself: it sends as it likes."""
        address = self.end(fd)
        with contextlib.suppress(OSError), borrowed(fd) as connection:
            if address_of(connection) == address:
                take_all_segments(connection)

    def end(self, fd: int) -> str:
        """The peer is watched no more. Gives its address, or "" if it was not on probation."""
        known = self._unproven.pop(fd, None)
        self._admitted.discard(fd)
        if known is None:
            return ""
        with contextlib.suppress(OSError):
            self._news.unregister(fd)
        return known.address

    def close(self) -> None:
        """Forgets all, and takes nobody any more."""
        self._unproven.clear()
        self._admitted.clear()
        if not self._news.closed:
            self._loop.unwatch(self._news.fileno())
            self._news.close()

    def _on_news(self) -> None:
        for fd, _ in self._news.poll(0, MOST):
            self._look_at(fd)

    def _look(self) -> None:
        for fd in list(self._unproven):
            self._look_at(fd)
        self._looks = bool(self._unproven)
        if self._looks:
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look)

    def _look_at(self, fd: int) -> None:
        if not (known := self._unproven.get(fd)):
            return
        received_bytes = _received_bytes(fd, known.address)
        if received_bytes is None:
            self.end(fd)
        elif received_bytes > self._most_bytes:
            self._end_by_force(fd, f"more than {self._most_bytes} bytes before it proved itself")
        elif time.monotonic() - known.since > LIMIT_S:
            self._end_by_force(fd, f"no proof of itself within {LIMIT_S:g} s")

    def _end_by_force(self, fd: int, cause: str) -> None:
        address = self.end(fd)
        hang_up(fd, address)
        self._cut(fd, address, cause)


def _received_bytes(fd: int, address: str) -> int | None:
    """From this peer, None if it has gone."""
    with contextlib.suppress(OSError), borrowed(fd) as end:
        if address_of(end) == address:
            nbytes: int = _RECEIVED.unpack(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size))[0]
            return nbytes
    return None


def hang_up(fd: int, address: str) -> None:
    """Ends a library's connection with this peer, if it is still there; the library will find it closed."""
    with contextlib.suppress(OSError), borrowed(fd) as end:
        if address_of(end) == address:
            reset_connection(end.fileno())


def borrowed(fd: int) -> socket.socket:
    """A TCP socket of a library's, by a descriptor of our own. Raises OSError for what is none."""
    ours = os.dup(fd)
    try:
        end = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=ours)  # or AF_INET, which nobody here asks
    except OSError:
        os.close(ours)
        raise
    try:
        end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO)
    except OSError:
        end.close()
        raise
    return end


def address_of(end: socket.socket) -> str:
    """Of the peer, "" if there is none: `10.0.0.1:4711`."""
    try:
        host, port, *_ = end.getpeername()
    except OSError:
        return ""
    return f"{host.removeprefix('::ffff:')}:{port}"


def address_at(fd: int) -> str:
    """Of whoever is at the other end, "" if nobody is."""
    with contextlib.suppress(OSError), borrowed(fd) as end:
        return address_of(end)
    return ""
