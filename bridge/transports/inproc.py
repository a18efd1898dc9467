"""Frames between endpoints of one process, for tests."""

from __future__ import annotations

import itertools
import threading

from bridge.errors import PeerLost, TransportError
from bridge.loop import Loop
from bridge.transport import Connection, Listener, Sink, Transport


class InprocConnection(Connection):
    """One end; `other` is set when both exist. A frame is delivered in the loop of the other end."""

    other: InprocConnection

    def __init__(self, peer: str, loop: Loop, sink: Sink) -> None:
        self.peer, self._loop, self._sink, self._open = peer, loop, sink, True

    def send(self, head: bytes, body: memoryview) -> None:
        if self._open:
            self.other._loop.call_soon(lambda: self.other._deliver(head, body))

    def close(self) -> None:
        if self._open:
            self._open = False
            self.other._loop.call_soon(self.other._lost)

    def _deliver(self, head: bytes, body: memoryview) -> None:
        if self._open:
            self._sink.on_frame(self, memoryview(head), body)

    def _lost(self) -> None:
        if self._open:
            self._open = False
            self._sink.on_lost(self, PeerLost("peer", self.peer, "it closed the connection"))


class InprocListener(Listener):
    """Its `uri` is known in this process only."""

    _numbers = itertools.count()
    _lock = threading.Lock()
    _all: dict[str, InprocListener] = {}  # noqa: RUF012  # the one address space of the process

    def __init__(self, transport: InprocTransport, sink: Sink) -> None:
        self.transport, self.sink = transport, sink
        self.uri = f"inproc://{next(self._numbers)}"
        with self._lock:
            self._all[self.uri] = self

    @classmethod
    def at(cls, uri: str) -> InprocListener:
        """The listener of an address. Raises TransportError."""
        with cls._lock:
            if uri not in cls._all:
                raise TransportError("uri", uri, "nobody listens there in this process", "connect by zmq or grpc")
            return cls._all[uri]

    def close(self) -> None:
        with self._lock:
            self._all.pop(self.uri, None)


class InprocTransport(Transport):
    scheme = "inproc"

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._listeners: list[InprocListener] = []
        self._connections: list[InprocConnection] = []

    def listen(self, host: str, sink: Sink) -> Listener:
        self._listeners.append(InprocListener(self, sink))
        return self._listeners[-1]

    def connect(self, uri: str, sink: Sink) -> Connection:
        listener = InprocListener.at(uri)
        near = InprocConnection(uri, self.loop, sink)
        far = InprocConnection(f"{uri} (dialler)", listener.transport.loop, listener.sink)
        near.other, far.other = far, near
        self._connections.append(near)
        listener.transport._connections.append(far)
        return near

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for connection in self._connections:
            connection.close()
