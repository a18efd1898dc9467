"""Frames over ZeroMQ: one ROUTER for all that dial us, one DEALER for each peer that we dial.

A frame is two message parts, head and body, or the head alone. The sockets live in the endpoint's loop through their
(edge-triggered) descriptors, so this transport adds no thread to ZeroMQ's own.

Diallers show their credentials as PLAIN username and password, which hold once (`trust/credentials.py`): libzmq gives
nobody else a route, nor keeps more than one command of theirs.
"""

from __future__ import annotations

import functools
import socket
import struct
import time

import zmq

from bridge.errors import PeerLost, TransportError
from bridge.system.linux import take_small_segments
from bridge.system.loop import Loop
from bridge.transports import probation, zap
from bridge.transports.probation import Probation
from bridge.transports.transport import WINDOW_BYTES, Admits, Connection, Credentials, FrameSink, Listener, Transport
from bridge.transports.zap import readable
from bridge.words.frame import EMPTY, MOST_BODY_BYTES, wire_error

_FRAMES_PER_TURN = 32  # then other descriptors get their turn
_EVENTS_PER_TURN = 32
_RECEIVE_QUEUE = 32  # frames that ZeroMQ may hold for us; more wait in the network
_LINGER_MS = 1000
_BACKLOG = 64  # connections that the system may hold for ZeroMQ's thread, which takes all at once
_CAME = int(zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED)
_GONE = int(zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_EVENT = struct.Struct("=Hi")


class ZmqConnection(Connection):
    """A peer behind a DEALER (no `route`) or behind one route of a ROUTER, which has the descriptor `fd`."""

    def __init__(self, owner: _ZmqSocket, peer: str, route: bytes | None = None, fd: int = -1) -> None:
        super().__init__(owner.transport, owner.sink, peer)
        self.route, self.fd, self._owner = route, fd, owner

    def send_frame(self, head: bytes, body: memoryview) -> None:
        if self.is_open:
            self._owner.send_frame(self, head, body)

    def trust(self) -> None:
        self._owner.trust(self)

    def release(self) -> None:
        self._owner.drop(self)


class _ZmqSocket:
    """A ZeroMQ socket and its monitor in the loop; what DEALER and ROUTER have in common."""

    unproven_bytes = probation.MOST_BYTES

    def __init__(self, transport: ZmqTransport, kind: int, sink: FrameSink) -> None:
        self.transport, self.sink, self._loop = transport, sink, transport.loop
        self.socket = transport.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # the stream bounds it
        self.socket.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MOST_BODY_BYTES)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, round(probation.LIMIT_S * 1000))
        self.socket.setsockopt(zmq.IPV6, 1)
        self._monitor = self._open_monitor()
        self._probation = Probation(self._loop, self._on_cut, self.unproven_bytes)
        self.is_closed = False
        for part, callback in ((self.socket, self._receive), (self._monitor, self._observe)):
            self._loop.watch(part.fileno(), callback)
            self._loop.call_soon(callback)  # the descriptor tells only what comes after a first look

    def send_frame(self, connection: ZmqConnection, head: bytes, body: memoryview) -> None:
        route = () if connection.route is None else (connection.route,)
        parts = (*route, head, body) if len(body) else (*route, head)
        try:
            self.socket.send_multipart(parts, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            self._loop.call_soon(functools.partial(self._give_up, connection, str(error)))
        self._loop.call_soon(self._receive)  # sending may swallow the descriptor's edge

    def trust(self, connection: ZmqConnection) -> None:
        """The peer has proved itself."""
        raise NotImplementedError

    def drop(self, connection: ZmqConnection) -> None:
        """Forgets a connection."""
        raise NotImplementedError

    def _give_up(self, connection: ZmqConnection, cause: str) -> None:
        self._drain()  # what the peer said last
        connection.lose(PeerLost("peer", connection.peer, cause))

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.unwatch(self.socket.fileno())
        self._loop.unwatch(self._monitor.fileno())
        self.socket.disable_monitor()
        self._monitor.close(0)
        self._probation.close()
        self.socket.close()

    def _open_monitor(self) -> zmq.Socket[bytes]:
        """Of a queue without end: ZeroMQ's thread waits for room in others, and nobody may close them meanwhile."""
        address = f"inproc://monitor of {self.socket.fileno()}"
        self.socket.monitor(address, _CAME | _GONE | _REFUSED)
        monitor = self.transport.context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(address)
        return monitor

    def _receive(self) -> None:
        for _ in range(_FRAMES_PER_TURN):
            if self.is_closed or not readable(self.socket):
                return
            self._receive_frame()
        self._loop.call_soon(self._receive)

    def _drain(self) -> None:
        while not self.is_closed and readable(self.socket):
            self._receive_frame()

    def _receive_frame(self) -> None:
        raise NotImplementedError

    def _take(self, connection: ZmqConnection | None, head: zmq.Frame) -> None:
        """Reads the body of a frame whose head has been read; what comes from nobody is dropped."""
        body = self.socket.recv(copy=False).buffer if head.more else EMPTY
        if self.socket.getsockopt(zmq.RCVMORE):
            self._skip()
            if connection:
                connection.lose(wire_error("parts", "more than two", "a frame is a head and a body"))
        elif connection:
            self.sink.on_frame(connection, head.buffer, body)

    def _skip(self) -> None:
        while self.socket.getsockopt(zmq.RCVMORE):
            self.socket.recv(copy=False)

    def _observe(self) -> None:
        for _ in range(_EVENTS_PER_TURN):
            if self.is_closed or not readable(self._monitor):
                return
            self._on_event(*self._next_event())
        self._loop.call_soon(self._observe)

    def _next_event(self) -> tuple[int, int]:
        """Kind and value, which is a descriptor, or the reason of what was refused."""
        event, _ = self._monitor.recv_multipart()
        kind, value = _EVENT.unpack(event)
        return kind, value

    def _on_event(self, kind: int, value: int) -> None:
        raise NotImplementedError

    def _on_cut(self, fd: int, address: str, cause: str) -> None:
        """A connection took too much before its peer had proved itself, and is being ended."""
        raise NotImplementedError


class _DealerSocket(_ZmqSocket):
    """The one peer that was dialled. ZeroMQ never dials again by itself: what was lost must be known."""

    unproven_bytes = 2 * WINDOW_BYTES  # who was dialled proves itself last, and may go on at once

    def __init__(self, transport: ZmqTransport, uri: str, sink: FrameSink, credentials: Credentials) -> None:
        super().__init__(transport, zmq.DEALER, sink)
        self.connection = ZmqConnection(self, uri)
        self._trusted = False
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt_string(zmq.PLAIN_USERNAME, credentials.claim)
        self.socket.setsockopt_string(zmq.PLAIN_PASSWORD, credentials.proof)
        try:
            self.socket.connect(_tcp(uri))
        except zmq.ZMQError as error:
            self.connection.close()
            raise TransportError("uri", uri, str(error), "use the uri that the peer's endpoint reported") from error

    def trust(self, connection: ZmqConnection) -> None:
        self._trusted = True
        self._probation.close()

    def drop(self, connection: ZmqConnection) -> None:
        self.close()

    def _receive_frame(self) -> None:
        self._take(self.connection, self.socket.recv(copy=False))

    def _on_event(self, kind: int, value: int) -> None:
        if kind & _CAME and not self._trusted:
            self._probation.begin(value)
        elif kind & _GONE:
            self._drain()
            self._lose("it closed the connection or refused it")

    def _on_cut(self, fd: int, address: str, cause: str) -> None:
        self._lose(cause)

    def _lose(self, cause: str) -> None:
        self.connection.lose(PeerLost("peer", self.connection.peer, cause))


class _RouterSocket(_ZmqSocket, Listener):
    """All peers that dialled us, by route; the monitor names a socket, so each route's is remembered.

    A connection that was closed here lives on in ZeroMQ until the peer ends it, or a second is over: what it still
    brings is dropped.
    """

    def __init__(self, transport: ZmqTransport, host: str, sink: FrameSink) -> None:
        super().__init__(transport, zmq.ROUTER, sink)
        self._by_route: dict[bytes, ZmqConnection | None] = {}
        self._route_of: dict[int, bytes] = {}
        self._refusal = ""
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.PLAIN_SERVER, 1)
        self.socket.setsockopt(zmq.ZAP_DOMAIN, zap.DOMAIN)
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        try:
            listener = _listener(host)
        except OSError as error:
            self.close()
            rule = f"cannot bind: {error}"
            raise TransportError("host", host, rule, "give an address of this host, or its interface") from error
        self.uri = f"zmq://{_bracket(host)}:{listener.getsockname()[1]}"
        self.socket.setsockopt(zmq.USE_FD, listener.detach())
        self.socket.bind(_tcp(self.uri))

    def trust(self, connection: ZmqConnection) -> None:
        self._probation.trust(connection.fd)

    def drop(self, connection: ZmqConnection) -> None:
        assert connection.route is not None
        self._by_route[connection.route] = None
        self._loop.call_at(time.monotonic() + _LINGER_MS / 1000, functools.partial(self._hang_up, connection))

    def _hang_up(self, connection: ZmqConnection) -> None:
        self._observe()  # it may have gone, and its descriptor be another's
        if not self.is_closed and self._route_of.get(connection.fd) == connection.route:
            probation.hang_up(connection.fd, connection.peer)

    def _receive_frame(self) -> None:
        route = self.socket.recv()
        head = self.socket.recv(copy=False)
        if route not in self._by_route:
            self._accept(route, head)
        self._take(self._by_route.get(route), head)

    def _accept(self, route: bytes, head: zmq.Frame) -> None:
        try:
            fd = int(head.get(zmq.SRCFD))
        except zmq.ZMQError:  # whoever speaks an old protocol has none, and is none of ours
            return
        self._observe_pending()  # the end of an earlier connection with the same descriptor comes first
        self._probation.admit(fd)
        self._by_route[route] = ZmqConnection(self, probation.address_at(fd), route, fd)
        self._route_of[fd] = route

    def _observe_pending(self) -> None:
        while readable(self._monitor):
            self._on_event(*self._next_event())

    def _on_event(self, kind: int, value: int) -> None:
        if kind & _REFUSED:
            shown = value == zap.REFUSED
            self._refusal = (
                "its credentials are no peer's" if shown else "it speaks as no endpoint of this release does"
            )
        elif kind & _CAME:
            self._probation.begin(value)
        elif route := self._route_of.pop(value, None):
            self._probation.end(value)
            self._loop.call_soon(functools.partial(self._end, route))
        elif (address := self._probation.end(value)) and self._refusal:
            self.sink.on_stranger(address, self._refusal)
            self._refusal = ""

    def _on_cut(self, fd: int, address: str, cause: str) -> None:
        self.sink.on_stranger(address, cause)

    def _end(self, route: bytes) -> None:
        self._drain()
        if connection := self._by_route.get(route):
            connection.lose(PeerLost("peer", connection.peer, "it closed the connection"))
        self._by_route.pop(route, None)


class ZmqTransport(Transport):
    scheme = "zmq"

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap: zap.ZapHandler | None = None

    def listen(self, host: str, sink: FrameSink, admits: Admits) -> Listener:
        self._close_zap()
        self._zap = zap.ZapHandler(self.context, self.loop, admits)
        router = _RouterSocket(self, host, sink)
        self.listeners.append(router)
        return router

    def connect(self, uri: str, sink: FrameSink, credentials: Credentials) -> Connection:
        return _DealerSocket(self, uri, sink, credentials).connection

    def close(self) -> None:
        super().close()
        self._close_zap()
        self.context.term()

    def _close_zap(self) -> None:
        if self._zap:
            self._zap.close()


def _listener(host: str) -> socket.socket:
    """For libzmq to accept from, whose own would take segments of any size from the first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind((host, 0))
        take_small_segments(listener, probation.MOST_SEGMENT_BYTES)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _tcp(uri: str) -> str:
    return "tcp://" + uri.partition("://")[2]


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
