"""Frames between endpoints of one process, for tests."""

from __future__ import annotations

import itertools
import threading

from bridge.errors import PeerLost, TransportError
from bridge.transports.transport import Admits, Connection, Credentials, FrameSink, Listener, Transport


class InprocConnection(Connection):
    """One end; `other` is set when both exist. A frame is delivered in the loop of the other end."""

    other: InprocConnection

    def send_frame(self, head: bytes, body: memoryview) -> None:
        if self.is_open:
            self.other._loop.call_soon(lambda: self.other._deliver(head, body))

    def release(self) -> None:
        lost = PeerLost("peer", self.other.peer, "it closed the connection")
        self.other._loop.call_soon(lambda: self.other.lose(lost))

    def _deliver(self, head: bytes, body: memoryview) -> None:
        if self.is_open:
            self._sink.on_frame(self, memoryview(head), body)


class InprocListener(Listener):
    """Its `uri` is known in this process only."""

    _numbers = itertools.count()
    _lock = threading.Lock()
    _all: dict[str, InprocListener] = {}  # noqa: RUF012  # the one address space of the process

    def __init__(self, transport: InprocTransport, sink: FrameSink) -> None:
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

    def listen(self, host: str, sink: FrameSink, admits: Admits) -> Listener:
        self.listeners.append(InprocListener(self, sink))
        return self.listeners[-1]

    def connect(self, uri: str, sink: FrameSink, credentials: Credentials) -> Connection:
        listener = InprocListener.at(uri)
        near = InprocConnection(self, sink, uri)
        far = InprocConnection(listener.transport, listener.sink, f"{uri} (dialler)")
        near.other, far.other = far, near
        return near
