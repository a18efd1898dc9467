"""Frames over gRPC: one long-lived stream in both directions for each pair of endpoints.

A frame is one message, header before payload, with identity serialisers: gRPC takes and gives `bytes` only, which costs
a copy on either side, but protobuf would cost two more. Streams block, hence a thread for each direction of a stream.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc

from bridge.errors import BridgeError, PeerLost, TransportError
from bridge.loop import Loop
from bridge.transport import Connection, Listener, Sink, Transport
from bridge.wire import HEADER_BYTES, MOST_BODY_BYTES

_SERVICE, _METHOD = "hetero.Bridge", "Frames"
_OPTIONS = [
    ("grpc.max_send_message_length", HEADER_BYTES + MOST_BODY_BYTES),
    ("grpc.max_receive_message_length", HEADER_BYTES + MOST_BODY_BYTES),
    ("grpc.so_reuseport", 0),  # else a second server may bind the same port
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_MOST_PEERS = 4096
_CLOSE_S = 1.0


class GrpcConnection(Connection):
    """Either end of a stream. gRPC pulls from `outgoing`; `read` feeds the loop from a thread of its own."""

    def __init__(self, peer: str, loop: Loop, sink: Sink) -> None:
        self.peer, self._loop, self._sink = peer, loop, sink
        self._queue: SimpleQueue[tuple[bytes, memoryview] | None] = SimpleQueue()
        self._open = True

    def send(self, head: bytes, body: memoryview) -> None:
        if self._open:
            self._queue.put((head, body))

    def close(self) -> None:
        self._open = False
        self._queue.put(None)

    def outgoing(self) -> Iterator[bytes]:
        """Frames as gRPC wants them; its flow control decides when the next one is made."""
        while frame := self._queue.get():
            yield b"".join(frame)

    def read(self, messages: Iterator[bytes]) -> None:
        """Moves messages into the loop until the stream ends, then says so."""
        cause = "it closed the stream"
        try:
            for message in messages:
                self._loop.call_soon(functools.partial(self._frame, message))
        except Exception as error:  # the server side of gRPC raises bare Exception when the peer is gone
            cause = _detail(error)
        self._loop.call_soon(lambda: self._lose(PeerLost("peer", self.peer, cause)))

    def _frame(self, message: bytes) -> None:
        if self._open:
            view = memoryview(message)
            self._sink.on_frame(self, view[:HEADER_BYTES], view[HEADER_BYTES:])

    def _lose(self, error: BridgeError) -> None:
        if self._open:
            self.close()
            self._sink.on_lost(self, error)


class GrpcListener(Listener):
    """A server with one method. Its pool makes a thread for each peer, not more."""

    def __init__(self, host: str, loop: Loop, sink: Sink) -> None:
        self._loop, self._sink = loop, sink
        self._connections: list[GrpcConnection] = []
        self._server = grpc.server(ThreadPoolExecutor(_MOST_PEERS, "bridge-grpc"), options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        address = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_insecure_port(f"{address}:0")
        except RuntimeError as error:
            rule = f"cannot bind: {error}"
            raise TransportError("host", host, rule, "give an address of this host, or its interface") from error
        self._server.start()
        self.uri = f"grpc://{address}:{port}"

    def _serve(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        connection = GrpcConnection(context.peer(), self._loop, self._sink)
        self._connections.append(connection)
        context.add_callback(lambda: connection._queue.put(None))
        threading.Thread(target=connection.read, args=(messages,), name="bridge-grpc-read", daemon=True).start()
        return connection.outgoing()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._server.stop(_CLOSE_S).wait()


class GrpcTransport(Transport):
    scheme = "grpc"

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._listeners: list[GrpcListener] = []
        self._dialled: list[tuple[GrpcConnection, Any, threading.Thread]] = []

    def listen(self, host: str, sink: Sink) -> Listener:
        self._listeners.append(GrpcListener(host, self.loop, sink))
        return self._listeners[-1]

    def connect(self, uri: str, sink: Sink) -> Connection:
        connection = GrpcConnection(uri, self.loop, sink)
        channel = grpc.insecure_channel(uri.partition("://")[2], _OPTIONS)
        stream = channel.stream_stream(f"/{_SERVICE}/{_METHOD}", None, None)(connection.outgoing())
        reader = threading.Thread(target=connection.read, args=(stream,), name="bridge-grpc-read", daemon=True)
        reader.start()
        self._dialled.append((connection, channel, reader))
        return connection

    def close(self) -> None:
        for connection, channel, reader in self._dialled:
            connection.close()
            reader.join(_CLOSE_S)
            with contextlib.suppress(ValueError):
                channel.close()
        for listener in self._listeners:
            listener.close()


def _detail(error: Exception) -> str:
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error) or "the stream broke"
