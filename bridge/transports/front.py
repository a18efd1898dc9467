"""A port of ours before a library that keeps what strangers send, and cannot be told to whom it should listen.

It takes the connections, and passes on to the library as little as a handshake needs until somebody has proved himself.
From then on the kernel moves his bytes from one socket to the other, without a copy of ours (splice(2)).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bridge.system.loop import Loop
from bridge.transports.probation import LIMIT_S, MOST, MOST_BYTES, address_of

_BACKLOG = 1024
_PER_TURN = 32
_LOOK_S = 0.5  # at those that are silent
_READ_BYTES = 16 << 10
_PIPE_BYTES = 1 << 20


class HiddenSocket:
    """Where the library listens: a Unix socket whose file, at `path`, is gone as soon as the library has made it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        path.unlink()

    def connect(self) -> socket.socket:
        """Raises OSError if the library is full."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            end.bind("")  # to a name that the kernel chooses, by which the library knows it
            end.connect(f"/proc/self/fd/{self._fd}")
        except OSError:
            end.close()
            raise
        return end

    def close(self) -> None:
        os.close(self._fd)


class _Stranger:
    """Somebody who has not proved himself. `inside` is there once he has said something."""

    def __init__(self, outside: socket.socket, address: str) -> None:
        self.outside, self.address, self.since = outside, address, time.monotonic()
        self.inside: socket.socket | None = None
        self.received_bytes = 0
        self.admitted = False

    @property
    def name(self) -> str:
        """By which the library knows him, "" if it does not."""
        name: bytes = self.inside.getsockname() if self.inside else b""
        return name.removeprefix(b"\0").decode()


class Front:
    """Listens at a free port of `host`; OSError if it cannot. `cut` is told of each that is hung up on, and why."""

    def __init__(self, loop: Loop, host: str, inside: HiddenSocket, cut: Callable[[str, str], object]) -> None:
        self._loop, self._inside, self._cut = loop, inside, cut
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._strangers: dict[int, _Stranger] = {}  # by descriptor, in the order of arrival
        self._looks = False
        loop.watch(self._listener.fileno(), self._accept)

    def address(self, name: str) -> str:
        """Of whom the library knows by that name: `10.0.0.1:4711`, "" if he has gone. Any thread may ask."""
        return next((stranger.address for stranger in list(self._strangers.values()) if stranger.name == name), "")

    def admit(self, address: str) -> None:
        """Who has come from there has shown good credentials: he is none of those that have to go when many come."""
        for stranger in self._strangers.values():
            stranger.admitted = stranger.admitted or stranger.address == address

    def trust(self, address: str) -> None:
        """Who has come from there has proved himself."""
        for stranger in list(self._strangers.values()):
            if stranger.address == address and stranger.inside:
                self._forget(stranger)
                _Relay(stranger.outside, stranger.inside)

    def close(self) -> None:
        """Takes nobody any more. Who is trusted stays until the library or he hangs up."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self._inside.close()
        for stranger in list(self._strangers.values()):
            self._end(stranger)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # nobody more is there, or he has gone already
            for _ in range(_PER_TURN):
                self._receive(self._listener.accept()[0])
        if not self._looks:
            self._look()

    def _receive(self, outside: socket.socket) -> None:
        outside.setblocking(False)
        stranger = self._strangers[outside.fileno()] = _Stranger(outside, address_of(outside))
        self._loop.watch(outside.fileno(), functools.partial(self._hear, stranger))
        waiting = [stranger for stranger in self._strangers.values() if not stranger.admitted]
        if len(waiting) > MOST:
            self._hang_up(waiting[0], f"{MOST} others came after it and before it showed anything")

    def _look(self) -> None:
        for stranger in list(self._strangers.values()):
            if time.monotonic() - stranger.since > LIMIT_S:
                self._hang_up(stranger, f"no proof of itself within {LIMIT_S:g} s")
        self._looks = bool(self._strangers)
        if self._looks:
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look)

    def _hear(self, stranger: _Stranger) -> None:
        data = _read(stranger.outside)
        if data is None:
            return
        stranger.received_bytes += len(data)
        if not data:
            self._end(stranger)
        elif stranger.received_bytes > MOST_BYTES:
            self._hang_up(stranger, f"more than {MOST_BYTES} bytes before it proved itself")
        elif not (stranger.inside or self._let_in(stranger)) or not _write(stranger.inside, data):
            self._hang_up(stranger, "too much is waiting already")

    def _let_in(self, stranger: _Stranger) -> bool:
        with contextlib.suppress(OSError):
            stranger.inside = self._inside.connect()
            self._loop.watch(stranger.inside.fileno(), functools.partial(self._answer, stranger))
        return stranger.inside is not None

    def _answer(self, stranger: _Stranger) -> None:
        assert stranger.inside
        data = _read(stranger.inside)
        if data is not None and not (data and _write(stranger.outside, data)):
            self._end(stranger)

    def _hang_up(self, stranger: _Stranger, cause: str) -> None:
        self._end(stranger)
        self._cut(stranger.address, cause)

    def _end(self, stranger: _Stranger) -> None:
        self._forget(stranger)
        stranger.outside.close()
        if stranger.inside:
            stranger.inside.close()

    def _forget(self, stranger: _Stranger) -> None:
        del self._strangers[stranger.outside.fileno()]
        for end in (stranger.outside, stranger.inside):
            if end:
                self._loop.unwatch(end.fileno())


class _Relay:
    """Two sockets whose bytes go to each other, each way in a thread; closes both when the first has ended."""

    def __init__(self, outside: socket.socket, inside: socket.socket) -> None:
        outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends, self._left, self._lock = (outside, inside), 2, threading.Lock()
        for source, sink in (self._ends, self._ends[::-1]):
            source.setblocking(True)
            threading.Thread(target=self._run, args=(source, sink), name="bridge-relay", daemon=True).start()

    def _run(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            _splice(source, sink)
        for end in self._ends:  # what was sent still arrives
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._left -= 1
            if not self._left:
                for end in self._ends:
                    end.close()


def _splice(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends. Raises OSError if either breaks."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # more than this user may have
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        while nbytes := os.splice(source.fileno(), writer, _PIPE_BYTES):
            while nbytes:
                nbytes -= os.splice(reader, sink.fileno(), nbytes)
    finally:
        os.close(reader)
        os.close(writer)


def _read(end: socket.socket) -> bytes | None:
    """What is there, None if nothing is, empty if the other side has gone."""
    try:
        return end.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(end: socket.socket | None, data: bytes) -> bool:
    """Whether there was room for all of it."""
    assert end
    try:
        return end.send(data) == len(data)
    except OSError:
        return False
