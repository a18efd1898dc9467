"""Frames over gRPC: one long-lived stream in both directions for each pair of endpoints.

A frame is one message, header before payload, with identity serialisers: gRPC takes and gives `bytes` only, which costs
a copy on either side, but protobuf would cost two more. Streams block, hence a thread for each direction of a stream.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import grpc

from bridge.errors import PeerLost, TransportError
from bridge.transports.front import Front, HiddenSocket
from bridge.transports.transport import Admits, Connection, Credentials, FrameSink, Listener, Transport
from bridge.words.frame import HEADER_BYTES, MOST_BODY_BYTES

_PATH = "/hetero.Bridge/Frames"
_OPTIONS = [
    ("grpc.max_send_message_length", HEADER_BYTES + MOST_BODY_BYTES),
    ("grpc.max_receive_message_length", HEADER_BYTES + MOST_BODY_BYTES),
    ("grpc.so_reuseport", 0),  # else a second server may bind the same port
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_NEVER = (1 << 31) - 1
_SERVER_OPTIONS = [
    *_OPTIONS,
    ("grpc.max_concurrent_streams", 1),
    ("grpc.max_metadata_size", 4096),
    ("grpc.absolute_max_metadata_size", 4096),
    ("grpc.server_handshake_timeout_ms", 2000),  # until the settings are there
    ("grpc.max_connection_idle_ms", 1000),  # without a stream
    ("grpc.max_connection_age_ms", 5000),  # then no new stream begins, while one that there is goes on
    ("grpc.max_connection_age_grace_ms", _NEVER),
]
_CLAIM, _PROOF = "claim", "proof"  # keys of a call's metadata
_MOST_PEERS = 4096
_CLOSE_S = 1.0


class GrpcConnection(Connection):
    """Either end of a stream. gRPC pulls from `outgoing`; a thread reads."""

    def __init__(self, transport: Transport, sink: FrameSink, peer: str, front: Front | None = None) -> None:
        super().__init__(transport, sink, peer)
        self._front = front
        self._queue: SimpleQueue[tuple[bytes, memoryview] | None] = SimpleQueue()

    def send_frame(self, head: bytes, body: memoryview) -> None:
        if self.is_open:
            self._queue.put((head, body))

    def trust(self) -> None:
        if self._front:
            self._front.trust(self.peer)

    def release(self) -> None:
        self.end()
        self._loop.call_at(time.monotonic() + _CLOSE_S, self._cancel)

    def end(self) -> None:
        """Nothing more will be sent. The stream ends when the peer has said so too."""
        self._queue.put(None)

    def outgoing(self) -> Iterator[bytes]:
        """Frames as gRPC wants them; its flow control decides when the next one is made."""
        while frame := self._queue.get():
            yield b"".join(frame)

    def begin(self, messages: Iterable[bytes], cancel: Callable[[], object], ended: Callable[[], object]) -> None:
        """Reads `messages`. `cancel` ends the stream at once, `ended` is called when it is over."""
        self._cancel = cancel
        name = "bridge-grpc-read"
        self._reader = threading.Thread(target=self._read, args=(messages, ended), name=name, daemon=True)
        self._reader.start()

    def join(self, deadline: float) -> None:
        """Waits for the end of the stream; after the deadline it is cancelled."""
        self._reader.join(max(0.0, deadline - time.monotonic()))
        self._cancel()

    def _read(self, messages: Iterable[bytes], ended: Callable[[], object]) -> None:
        cause = "it closed the stream"
        try:
            for message in messages:
                self._loop.call_soon(functools.partial(self._frame, message))
        except Exception as error:  # the server side of gRPC raises bare Exception when the peer is gone
            cause = _detail(error)
        self._loop.call_soon(lambda: self.lose(PeerLost("peer", self.peer, cause)))
        ended()

    def _frame(self, message: bytes) -> None:
        if self.is_open:
            view = memoryview(message)
            self._sink.on_frame(self, view[:HEADER_BYTES], view[HEADER_BYTES:])


class GrpcListener(Listener, grpc.GenericRpcHandler):  # type: ignore[type-arg]  # the stubs alone
    """A server with one method. Its pool makes a thread for each peer, not more, and none for whoever is no peer."""

    def __init__(self, transport: Transport, host: str, sink: FrameSink, admits: Admits) -> None:
        self._transport, self._sink, self._admits = transport, sink, admits
        self._server = grpc.server(ThreadPoolExecutor(_MOST_PEERS, "bridge-grpc"), options=_SERVER_OPTIONS)
        self._method = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((self,))
        try:
            self._front = Front(transport.loop, host, self._start(), sink.on_stranger)
        except OSError as error:
            rule = f"cannot bind: {error}"
            raise TransportError("host", host, rule, "give an address of this host, or its interface") from error
        address = f"[{host}]" if ":" in host else host
        self.uri = f"grpc://{address}:{self._front.port}"

    def _start(self) -> HiddenSocket:
        """The server listens where nobody but its front finds it."""
        with tempfile.TemporaryDirectory() as folder, _opened(folder) as fd:
            self._server.add_insecure_port(f"unix:/proc/self/fd/{fd}/grpc")  # a path of any length would be too long
            self._server.start()
            return HiddenSocket(Path(folder, "grpc"))

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """What serves a call; None refuses it."""
        shown = dict(call.invocation_metadata)
        if self._admits(str(shown.get(_CLAIM, "")), str(shown.get(_PROOF, ""))):
            return self._method if call.method == _PATH else None
        self._transport.loop.call_soon(self._tell_of_stranger)
        return None

    def _tell_of_stranger(self) -> None:
        self._sink.on_stranger(f"somebody at {self.uri}", "its credentials are no peer's")

    def _serve(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        address = self._front.address(context.peer().rpartition(":")[2])
        connection = GrpcConnection(self._transport, self._sink, address, self._front)
        self._transport.loop.call_soon(functools.partial(self._front.admit, address))
        context.add_callback(connection.end)
        connection.begin(messages, context.cancel, lambda: None)
        return connection.outgoing()

    def close(self) -> None:
        self._front.close()
        self._server.stop(_CLOSE_S).wait()


class GrpcTransport(Transport):
    scheme = "grpc"

    def listen(self, host: str, sink: FrameSink, admits: Admits) -> Listener:
        self.listeners.append(GrpcListener(self, host, sink, admits))
        return self.listeners[-1]

    def connect(self, uri: str, sink: FrameSink, credentials: Credentials) -> Connection:
        connection = GrpcConnection(self, sink, uri)
        channel = grpc.insecure_channel(uri.partition("://")[2], _OPTIONS)
        shown = ((_CLAIM, credentials.claim), (_PROOF, credentials.proof))
        stream = channel.stream_stream(_PATH, None, None)(connection.outgoing(), metadata=shown)
        connection.begin(stream, stream.cancel, channel.close)
        return connection

    def close(self) -> None:
        deadline = time.monotonic() + _CLOSE_S
        streams = cast("tuple[GrpcConnection, ...]", tuple(self.connections))
        super().close()
        for stream in streams:
            stream.join(deadline)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A descriptor of a folder."""
    fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _detail(error: Exception) -> str:
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error) or "the stream broke"
