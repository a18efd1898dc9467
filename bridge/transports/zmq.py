"""Frames over ZeroMQ: one ROUTER for all that dial us, one DEALER for each peer that we dial.

A frame is two message parts, head and body, or the head alone. The sockets live in the endpoint's loop through their
(edge-triggered) descriptors, so this transport adds no thread to ZeroMQ's own.
"""

from __future__ import annotations

import functools

import zmq
from zmq.utils.monitor import recv_monitor_message

from bridge.errors import PeerLost, TransportError
from bridge.loop import Loop
from bridge.transport import Connection, Listener, Sink, Transport
from bridge.wire import EMPTY, MOST_BODY_BYTES, wire_error

_FRAMES_PER_TURN = 32  # then other descriptors get their turn
_RECEIVE_QUEUE = 32  # frames that ZeroMQ may hold for us; more wait in the network
_LINGER_MS = 1000
_GONE = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


class ZmqConnection(Connection):
    """A peer behind a DEALER (no `route`) or behind one route of a ROUTER."""

    def __init__(self, wire: _Wire, peer: str, route: bytes | None = None) -> None:
        super().__init__(wire.transport, wire.sink, peer)
        self.route, self._wire = route, wire

    def send(self, head: bytes, body: memoryview) -> None:
        if self.is_open:
            self._wire.send(self, head, body)

    def release(self) -> None:
        self._wire.drop(self)


class _Wire:
    """A ZeroMQ socket and its monitor in the loop; what DEALER and ROUTER have in common."""

    def __init__(self, transport: ZmqTransport, kind: int, sink: Sink) -> None:
        self.transport, self.sink, self._loop = transport, sink, transport.loop
        self.socket = transport.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # the lane bounds it
        self.socket.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MOST_BODY_BYTES)
        self.socket.setsockopt(zmq.IPV6, 1)
        self._monitor = self.socket.get_monitor_socket(_GONE)
        self.is_closed = False
        for part, callback in ((self.socket, self._receive), (self._monitor, self._observe)):
            self._loop.watch(part.fileno(), callback)
            self._loop.call_soon(callback)  # the descriptor tells only what comes after a first look

    def send(self, connection: ZmqConnection, head: bytes, body: memoryview) -> None:
        route = () if connection.route is None else (connection.route,)
        parts = (*route, head, body) if len(body) else (*route, head)
        try:
            self.socket.send_multipart(parts, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            self._loop.call_soon(functools.partial(self._give_up, connection, str(error)))
        self._loop.call_soon(self._receive)  # sending may swallow the descriptor's edge

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
        self.socket.close()

    def _receive(self) -> None:
        for _ in range(_FRAMES_PER_TURN):
            if self.is_closed or not _readable(self.socket):
                return
            self._receive_frame()
        self._loop.call_soon(self._receive)

    def _drain(self) -> None:
        while not self.is_closed and _readable(self.socket):
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
        while not self.is_closed and _readable(self._monitor):
            event = recv_monitor_message(self._monitor)
            self._on_gone(event["value"])

    def _on_gone(self, fd: int) -> None:
        raise NotImplementedError


class _Dealer(_Wire):
    """The one peer that was dialled. ZeroMQ never dials again by itself: what was lost must be known."""

    def __init__(self, transport: ZmqTransport, uri: str, sink: Sink) -> None:
        super().__init__(transport, zmq.DEALER, sink)
        self.connection = ZmqConnection(self, uri)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        try:
            self.socket.connect(_tcp(uri))
        except zmq.ZMQError as error:
            self.connection.close()
            raise TransportError("uri", uri, str(error), "use the uri that the peer's endpoint reported") from error

    def drop(self, connection: ZmqConnection) -> None:
        self.close()

    def _receive_frame(self) -> None:
        self._take(self.connection, self.socket.recv(copy=False))

    def _on_gone(self, fd: int) -> None:
        self._drain()
        self.connection.lose(PeerLost("peer", self.connection.peer, "it closed the connection or refused it"))


class _Router(_Wire, Listener):
    """All peers that dialled us, by route; the monitor names a socket, so each route's is remembered.

    A connection that was closed here lives on in ZeroMQ until the peer ends it: what it still brings is dropped.
    """

    def __init__(self, transport: ZmqTransport, host: str, sink: Sink) -> None:
        super().__init__(transport, zmq.ROUTER, sink)
        self._by_route: dict[bytes, ZmqConnection | None] = {}
        self._route_of: dict[int, bytes] = {}
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            port = self.socket.bind_to_random_port(f"tcp://{_bracket(host)}")
        except (zmq.ZMQError, zmq.ZMQBindError) as error:
            self.close()
            rule = f"cannot bind: {error}"
            raise TransportError("host", host, rule, "give an address of this host, or its interface") from error
        self.uri = f"zmq://{_bracket(host)}:{port}"

    def drop(self, connection: ZmqConnection) -> None:
        assert connection.route is not None
        self._by_route[connection.route] = None

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
        self._by_route[route] = ZmqConnection(self, f"zmq peer {route.hex()}", route)
        self._route_of[fd] = route

    def _observe_pending(self) -> None:
        while _readable(self._monitor):
            if route := self._route_of.pop(recv_monitor_message(self._monitor)["value"], None):
                self._loop.call_soon(functools.partial(self._end, route))

    def _on_gone(self, fd: int) -> None:
        if route := self._route_of.pop(fd, None):
            self._end(route)

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

    def listen(self, host: str, sink: Sink) -> Listener:
        router = _Router(self, host, sink)
        self.listeners.append(router)
        return router

    def connect(self, uri: str, sink: Sink) -> Connection:
        return _Dealer(self, uri, sink).connection

    def close(self) -> None:
        super().close()
        self.context.term()


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _tcp(uri: str) -> str:
    return "tcp://" + uri.partition("://")[2]


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
