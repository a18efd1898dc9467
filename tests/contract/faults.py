"""Faults for the bridge: of frames, put between streams and transports, and of streams, put between two hosts."""

from __future__ import annotations

import contextlib
import functools
import random
import select
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.errors import PeerLost
from bridge.transports.transport import Connection
from bridge.trust.seal import Checked
from bridge.words.frame import EMPTY, FrameKind, text_frame
from tests.patience import WAIT_S

NUMBERED = [kind for kind in FrameKind if kind.numbered]
KINDS = ("drop", "duplicate", "reorder", "truncate", "flip_head", "flip_body", "cut")


class FrameFaults:
    """Does something to one frame in `1 / rate`, until `most` frames have suffered. Seeded: what happens to the n-th
    frame is always the same."""

    def __init__(
        self,
        kind: type[Connection],
        monkeypatch: pytest.MonkeyPatch,
        *,
        seed: int,
        rate: float,
        most: int,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self._real: Any = kind.send_frame
        self._random, self._rate, self._most, self._kinds = random.Random(seed), rate, most, kinds
        self._held: dict[Connection, tuple[bytes, memoryview]] = {}
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        faults = self

        def send_frame(connection: Connection, head: bytes, body: memoryview = EMPTY) -> None:
            faults.send_frame(connection, head, body)

        monkeypatch.setattr(kind, "send_frame", send_frame)

    def send_frame(self, connection: Connection, head: bytes, body: memoryview) -> None:
        with self._lock:
            suffers = self._random.random() < self._rate and self.done.total() < self._most
            suffers = suffers and head[3] in NUMBERED  # a handshake that suffers is only slow
            what = self._random.choice(self._kinds) if suffers else "none"
            bit = self._random.randrange(1 << 20)
        self.done.update([what] if suffers else [])
        getattr(self, f"_{what}")(connection, head, body, bit)

    def _none(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._real(connection, head, body)
        if held := self._held.pop(connection, None):
            self._real(connection, *held)

    def _drop(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        pass

    def _duplicate(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._real(connection, head, body)
        self._real(connection, head, body)

    def _reorder(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._held[connection] = head, body

    def _truncate(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._real(connection, head, body[: len(body) // 2])

    def _flip_head(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._real(connection, bytes(_flipped(head, bit)), body)

    def _flip_body(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        self._real(connection, head, memoryview(_flipped(body, bit)))

    def _cut(self, connection: Connection, head: bytes, body: memoryview, bit: int) -> None:
        lost = PeerLost("peer", connection.peer, "cut by the test")
        self._real(connection, *Checked().apply(*text_frame(FrameKind.CUT, lost.rule)))
        connection.close()
        connection._loop.call_soon(functools.partial(connection._sink.on_lost, connection, lost))


def _flipped(data: bytes | memoryview, bit: int) -> bytearray:
    flipped = bytearray(data)
    if flipped:
        flipped[bit // 8 % len(flipped)] ^= 1 << bit % 8
    return flipped


class Relay:
    """A TCP relay before a listener, which cuts its streams, or stops moving bytes, when told to."""

    def __init__(self, uri: str) -> None:
        scheme, _, address = uri.partition("://")
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.streams: list[tuple[socket.socket, socket.socket]] = []
        self.bytes_moved, self.seen = 0, bytearray()
        self.stopped = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def is_dialled(self) -> bool:
        """Whether a new stream waits to be let through."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def cut(self) -> None:
        """Ends all streams at once, wherever they are."""
        for pair in self.streams[:]:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        self._thread.join(WAIT_S)
        self._listener.close()
        for pair in self.streams:
            for end in pair:
                end.close()

    def _run(self) -> None:
        while not self._closed:
            if self.stopped:
                time.sleep(0.01)
                continue
            with selectors.DefaultSelector() as ready:
                ready.register(self._listener, selectors.EVENT_READ, None)
                for near, far in self.streams:
                    ready.register(near, selectors.EVENT_READ, (near, far))
                    ready.register(far, selectors.EVENT_READ, (far, near))
                for key, _ in ready.select(0.02):
                    self._turn(key.data)

    def _turn(self, way: tuple[socket.socket, socket.socket] | None) -> None:
        if way is None:
            near, _ = self._listener.accept()
            try:
                self.streams.append((near, socket.create_connection(self._target)))
            except OSError:
                near.close()
            return
        source, target = way
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(1 << 18)
            target.sendall(data)
        self.bytes_moved += len(data)
        self.seen += data[: max(0, (4 << 20) - len(self.seen))]
        if not data:
            for pair in [pair for pair in self.streams if source in pair]:
                self.streams.remove(pair)
                for end in pair:
                    end.close()
