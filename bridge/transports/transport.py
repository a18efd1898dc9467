"""What a transport is, and which there are: one file, one URI scheme, one line here or one entry point each."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import NamedTuple, Protocol, cast

from bridge.errors import BridgeError, TransportError
from bridge.port.slots import SlotRing
from bridge.system.loop import Loop
from bridge.words.frame import CHUNK_BYTES

_BUILT_IN = {
    "zmq": "bridge.transports.zmq:ZmqTransport",
    "grpc": "bridge.transports.grpc:GrpcTransport",
    "shm": "bridge.transports.shm:ShmTransport",
    "inproc": "bridge.transports.inproc:InprocTransport",
}
ENTRY_POINT_GROUP = "hetero.transports"
WINDOW_BYTES = 32 << 20
"""Under way on a connection at most: less starves long fat links, more only fills queues."""


class Credentials(NamedTuple):
    """What a dialler shows before it is given a connection: two printable texts, good once."""

    claim: str
    proof: str


Admits = Callable[[str, str], bool]
"""Whether a dialler who shows this claim and proof may have a connection. For any thread."""


class Connection(ABC):
    """A duplex path to one peer, for frames of two parts: a head of HEADER_BYTES and a body.

    It carries them in order as long as it lasts. Frames on their way when it breaks may be lost, whatever it said:
    streams send them again over the next one.

    peer  an address, for people
    """

    chunk_bytes = CHUNK_BYTES  # the best size of a body
    shares_memory = False  # bodies never leave the memory of this host, see `lend`

    def __init__(self, transport: Transport, sink: FrameSink, peer: str) -> None:
        self.peer, self.is_open = peer, True
        self._transport, self._loop, self._sink = transport, transport.loop, sink
        transport.connections.add(self)

    @abstractmethod
    def send_frame(self, head: bytes, body: memoryview) -> None:
        """Queues a frame and returns at once; a connection that is lost swallows it, `on_lost` has told so.

        The body is read later: it must stay as it is until the peer has said that it has seen the frame. So the queue
        holds references, never copies, and the stream's window bounds what is in it.
        """

    def reclaim(self, ring: SlotRing) -> None:  # noqa: B027
        """No more bodies of this ring will come."""

    def close(self) -> None:
        """Drops the connection; `on_lost` is not called for it here. The peer's end is lost, soon or late."""
        if self.is_open:
            self.is_open = False
            self._transport.connections.discard(self)
            self.release()

    def lose(self, error: BridgeError) -> None:
        """Drops the connection and tells the sink why, unless that is done."""
        if self.is_open:
            self.close()
            self._sink.on_lost(self, error)

    def release(self) -> None:  # noqa: B027
        """Frees what it holds. For `close` to call."""

    def trust(self) -> None:  # noqa: B027
        """The peer has proved itself: from now on it may send much."""

    def lend(self, ring: SlotRing) -> None:  # noqa: B027  # most have no use for it
        """Bodies to come will be views of this ring: a transport may show it to the peer instead of sending."""


class FrameSink(Protocol):
    """Who receives. All calls come in the loop's thread."""

    def on_frame(self, connection: Connection, head: memoryview, body: memoryview) -> None:
        """A frame has come. Both parts are the transport's own memory, to be read during the call alone."""

    def on_lost(self, connection: Connection, error: BridgeError) -> None:
        """The peer has gone, or has sent what is no frame. Called at most once, after all frames that did arrive."""

    def on_stranger(self, address: str, cause: str) -> None:
        """Somebody was turned away before there was a connection."""


class Listener(ABC):
    uri: str  # what a peer passes to `connect`

    @abstractmethod
    def close(self) -> None:
        """Unbinds the address. Connections that were accepted there end with it."""


class Transport(ABC):
    """All connections of one scheme in one endpoint. Every method is called in the loop's thread.

    connections  those that are open; one that closes is forgotten
    """

    scheme: str

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.listeners: list[Listener] = []
        self.connections: set[Connection] = set()

    @abstractmethod
    def listen(self, host: str, sink: FrameSink, admits: Admits) -> Listener:
        """Binds a free port of `host`. Raises TransportError if it cannot.

        Whoever is not admitted gets neither memory nor time to speak of. Those need not ask whose diallers the system
        vouches for.
        """

    @abstractmethod
    def connect(self, uri: str, sink: FrameSink, credentials: Credentials) -> Connection:
        """Starts to connect and returns at once; a peer that cannot be reached is an `on_lost`."""

    def close(self) -> None:
        """Sends what is queued, for at most a second, and frees everything."""
        for connection in tuple(self.connections):
            connection.close()
        for listener in self.listeners:
            listener.close()


def scheme_of(uri: str) -> str:
    """`zmq` of `zmq://127.0.0.1:4711`."""
    return uri.partition("://")[0]


def schemes() -> tuple[str, ...]:
    """Every scheme that is installed, without importing any."""
    return tuple(_targets())


def load_transport(scheme: str) -> type[Transport]:
    """Imports the transport of a scheme. Raises TransportError for an unknown one."""
    targets = _targets()
    if scheme not in targets:
        close = difflib.get_close_matches(scheme, targets, 1)
        remedy = f"did you mean {close[0]}?" if close else f"use one of {', '.join(targets)}"
        raise TransportError("transport", scheme, "no such transport is installed", remedy)
    return targets[scheme]()


def _targets() -> dict[str, Callable[[], type[Transport]]]:
    outside = {point.name: point.load for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {scheme: _importer(target) for scheme, target in _BUILT_IN.items()} | outside


def _importer(target: str) -> Callable[[], type[Transport]]:
    module, _, name = target.partition(":")
    return lambda: cast("type[Transport]", getattr(import_module(module), name))
