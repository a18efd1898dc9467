"""A pipe: a Unix stream socket between two processes of one host, for words, length-prefixed, and descriptors."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence

from bridge.errors import PipeClosed, WordError
from bridge.words.release import RELEASE, Release, meet
from bridge.words.word import Word, decode, encode

_PREFIX = struct.Struct("!IB")  # bytes of the word, number of descriptors
_MAX_FDS = 253  # the kernel's SCM_MAX_FD
_FDS_BYTES = socket.CMSG_LEN(_MAX_FDS * 4)
_READ_BYTES = 1 << 16
MOST_BYTES = 1 << 28  # of a word, unless a pipe says less


class Pipe:
    """One end of a duplex pipe for words. Owns its socket.

    Any thread may send. One thread at a time may receive. A word's descriptors travel with its first bytes; the
    receiver owns the descriptors that it is given, the sender keeps its own. Before its first word each end says its
    release: with it, or at once where a process takes over what it has inherited.

    most_bytes  of a word from the other end; who announces more is not read any further
    """

    def __init__(self, sock: socket.socket, most_bytes: int = MOST_BYTES) -> None:
        sock.setblocking(True)
        self._socket, self._most_bytes = sock, most_bytes
        self._send_lock = threading.Lock()
        self._backlog = bytearray()
        self._release = _frame(Release(RELEASE))
        self._has_met = False
        self._bytes = bytearray()
        self._fds: list[int] = []
        self._eof = False

    @staticmethod
    def pair() -> tuple[Pipe, Pipe]:
        """Two ends of a new pipe. Both are close-on-exec, as every descriptor that Python makes."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Pipe(left), Pipe(right)

    @classmethod
    def from_fd(cls, fd: int, most_bytes: int = MOST_BYTES) -> Pipe:
        """Takes ownership of a descriptor that was inherited or received, and says so."""
        pipe = cls(socket.socket(fileno=fd), most_bytes)
        with contextlib.suppress(PipeClosed):  # whoever reads is told
            pipe._push(b"", [])
        return pipe

    def fileno(self) -> int:
        """For poll; note `pending()`, for words that have been read from the socket already."""
        return self._socket.fileno()

    def detach(self) -> int:
        """Gives the descriptor away; this object is dead then."""
        return self._socket.detach()

    def send_word(self, word: Word, fds: Sequence[int] = ()) -> None:
        """Blocks until the kernel has taken the whole word. Raises PipeClosed if nobody reads the other end."""
        if len(fds) > _MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors; a word carries at most {_MAX_FDS}")
        self._push(_frame(word, len(fds)), fds)

    def _push(self, frame: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._send_lock:
            data = memoryview(self._with_release(frame))
            try:
                sent = self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
                if sent < len(data):
                    self._socket.sendall(data[sent:], socket.MSG_NOSIGNAL)
            except OSError as error:
                raise _closed(str(error)) from error

    def offer_word(self, word: Word) -> None:
        """Never blocks: what the kernel does not take now waits for `flush`. Never beside `send_word`."""
        self._backlog += self._with_release(_frame(word))
        self.flush()

    def _with_release(self, frame: bytes) -> bytes:
        release, self._release = self._release, b""
        return release + frame

    def flush(self) -> bool:
        """Passes on what `offer_word` left behind, as far as that does not block; whether all is gone."""
        while self._backlog:
            try:
                sent = self._socket.send(self._backlog, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError as error:
                raise _closed(str(error)) from error
            del self._backlog[:sent]
        return True

    def recv_word(self, timeout: float | None = None) -> tuple[Word, list[int]]:
        """The next word and its descriptors. Raises TimeoutError after `timeout` seconds, PipeClosed at the end,
        WordError for what is no word, ReleaseDiffers for an end of another release; the next call goes on behind it."""
        until = None if timeout is None else time.monotonic() + timeout
        while (parsed := self._parse()) is None:
            if self._eof:
                raise _closed("end of stream")
            if until is not None and not self._readable(until - time.monotonic()):
                raise TimeoutError(f"no word within {timeout} s")
            self._read()
        return parsed

    def drain(self) -> Iterator[tuple[Word, list[int]]]:
        """All words that are here, without blocking. Raises as `recv_word` does."""
        while self.pending() or self._readable(0.0):
            try:
                yield self.recv_word(timeout=0.0)
            except TimeoutError:  # the rest of a long word is still to come
                return

    def pending(self) -> bool:
        """Whether `recv_word` would return without touching the socket: ask before sleeping in poll."""
        return self._is_whole() or self._eof

    def shut(self) -> None:
        """Ends the traffic in both directions, and wakes whoever waits for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket and every descriptor that was received but not yet handed out."""
        self._drop_fds()
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
        if len(self._fds) > 2 * _MAX_FDS:  # of the word that is coming, and of the next
            self._give_up()
            raise _nonsense("descriptors", f"over {2 * _MAX_FDS}", "words say how many come with them")

    def _give_up(self) -> None:
        """Nothing is read any more of who makes no sense."""
        self._bytes.clear()
        self._drop_fds()
        self._eof = True

    def _drop_fds(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _announced(self) -> tuple[int, int] | None:
        """(bytes, number of descriptors) of the word that is coming, None before it has begun."""
        return _PREFIX.unpack_from(self._bytes) if len(self._bytes) >= _PREFIX.size else None

    def _is_whole(self) -> bool:
        announced = self._announced()
        return announced is not None and len(self._bytes) >= _PREFIX.size + announced[0]

    def _parse(self) -> tuple[Word, list[int]] | None:
        if (announced := self._announced()) is None:
            return None
        size, count = announced
        if size > self._most_bytes:
            self._give_up()
            raise _nonsense("bytes", size, f"a word has at most {self._most_bytes}")
        if not self._is_whole():
            return None
        end = _PREFIX.size + size
        data = bytes(self._bytes[_PREFIX.size : end])
        del self._bytes[:end]
        fds, self._fds = self._fds[:count], self._fds[count:]
        if self._has_met:
            return decode(data), fds
        self._has_met = True
        meet(data)
        return self._parse()


def _frame(word: Word, fds: int = 0) -> bytes:
    body = encode(word)
    return _PREFIX.pack(len(body), fds) + body


def _nonsense(key: str, value: object, rule: str) -> WordError:
    remedy = "look for the error of the process at the other end, and please report it"
    return WordError(f"pipe.{key}", value, rule, remedy)


def _closed(cause: str) -> PipeClosed:
    rule = "the process at the other end has closed it or died"
    return PipeClosed("pipe", cause, rule, "look for that process's own error")
