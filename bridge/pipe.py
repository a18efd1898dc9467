"""Messages between processes of one host: length-prefixed JSON and descriptors over a Unix stream socket."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.errors import PipeClosed

Message = dict[str, Any]

_PREFIX = struct.Struct("!IB")  # bytes of JSON, number of descriptors
_MAX_FDS = 253  # the kernel's SCM_MAX_FD
_FDS_BYTES = socket.CMSG_LEN(_MAX_FDS * 4)
_READ_BYTES = 1 << 16


class Pipe:
    """One end of a duplex message pipe. Owns its socket.

    Any thread may send. One thread at a time may receive. A message's descriptors travel with its first bytes; the
    receiver owns the descriptors that it is given, the sender keeps its own.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._send_lock = threading.Lock()
        self._backlog = bytearray()
        self._bytes = bytearray()
        self._fds: list[int] = []
        self._eof = False

    @staticmethod
    def pair() -> tuple[Pipe, Pipe]:
        """Two ends of a new pipe. Both are close-on-exec, as every descriptor that Python makes."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Pipe(left), Pipe(right)

    @classmethod
    def from_fd(cls, fd: int) -> Pipe:
        """Takes ownership of a descriptor that was inherited or received."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """For poll; note `pending()`, for messages that have been read from the socket already."""
        return self._socket.fileno()

    def detach(self) -> int:
        """Gives the descriptor away; this object is dead then."""
        return self._socket.detach()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Blocks until the kernel has taken the whole message. Raises PipeClosed if nobody reads the other end."""
        if len(fds) > _MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors; a message carries at most {_MAX_FDS}")
        data = memoryview(_encode(message, len(fds)))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._send_lock:
            try:
                sent = self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
                if sent < len(data):
                    self._socket.sendall(data[sent:], socket.MSG_NOSIGNAL)
            except OSError as error:
                raise _closed(str(error)) from error

    def offer(self, message: Message) -> None:
        """Never blocks: what the kernel does not take now waits for `flush`. Not to be mixed with `send` of one end."""
        self._backlog += _encode(message, 0)
        self.flush()

    def flush(self) -> bool:
        """Passes on what `offer` left behind, as far as that does not block; whether all is gone."""
        while self._backlog:
            try:
                sent = self._socket.send(self._backlog, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError as error:
                raise _closed(str(error)) from error
            del self._backlog[:sent]
        return True

    def recv(self, timeout: float | None = None) -> tuple[Message, list[int]]:
        """The next message and its descriptors. Raises TimeoutError after `timeout` seconds, PipeClosed at the end."""
        until = None if timeout is None else time.monotonic() + timeout
        while (parsed := self._parse()) is None:
            if self._eof:
                raise _closed("end of stream")
            if until is not None and not self._readable(until - time.monotonic()):
                raise TimeoutError(f"no message within {timeout} s")
            self._read()
        return parsed

    def drain(self) -> Iterator[tuple[Message, list[int]]]:
        """All messages that are here, without blocking. Raises PipeClosed at the end of the stream."""
        while self.pending() or self._readable(0.0):
            try:
                yield self.recv(timeout=0.0)
            except TimeoutError:  # the rest of a long message is still to come
                return

    def pending(self) -> bool:
        """Whether `recv` would return without touching the socket: ask before sleeping in poll."""
        return self._whole() is not None or self._eof

    def shut(self) -> None:
        """Ends the traffic in both directions, and wakes whoever waits for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket and every descriptor that was received but not yet handed out."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._eof = True
        self._socket.close()

    def _readable(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, _FDS_BYTES, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, ancillary = b"", []
        except OSError as error:
            raise _closed(str(error)) from error
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds += memoryview(value[: len(value) // 4 * 4]).cast("i")
        self._bytes += data
        self._eof = not data

    def _whole(self) -> tuple[int, int] | None:
        """(bytes of JSON, number of descriptors) of a message that is here completely."""
        if len(self._bytes) < _PREFIX.size:
            return None
        size, count = _PREFIX.unpack_from(self._bytes)
        return (size, count) if len(self._bytes) >= _PREFIX.size + size else None

    def _parse(self) -> tuple[Message, list[int]] | None:
        if (whole := self._whole()) is None:
            return None
        size, count = whole
        end = _PREFIX.size + size
        message = json.loads(self._bytes[_PREFIX.size : end])
        del self._bytes[:end]
        fds, self._fds = self._fds[:count], self._fds[count:]
        return message, fds


def _encode(message: Message, fds: int) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return _PREFIX.pack(len(body), fds) + body


def _closed(cause: str) -> PipeClosed:
    rule = "the process at the other end has closed it or died"
    return PipeClosed("pipe", cause, rule, "look for that process's own error")
