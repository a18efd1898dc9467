"""Strangers by the thousand, who speak to an endpoint's ports as no endpoint would, in bytes of their own making.

    python -m tests.contract.strangers KIND URI COUNT      until it is killed; whoever is hung up on comes again

Each kind is what one of them sends, piece by piece; None: nothing more, and the connection stays.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator

Pieces = Iterator[bytes | None]
_AGAIN_S = 1.0
MOST_BYTES = {"zmq": 64 << 20, "grpc": 32 << 20}
"""An endpoint may grow by so much, whoever comes."""


# ZeroMQ's wire, ZMTP 3.0


def greeting(mechanism: str) -> bytes:
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.encode().ljust(20, b"\0") + bytes(32)


def command(name: bytes, body: bytes = b"") -> bytes:
    said = bytes([len(name)]) + name + body
    return struct.pack("!BQ", 6, len(said)) + said


def ready(name: bytes, route: bytes = b"") -> bytes:
    """READY or INITIATE of a DEALER, that claims a route."""
    told = {b"Socket-Type": b"DEALER", b"Identity": route}
    body = b"".join(bytes([len(key)]) + key + struct.pack("!I", len(value)) + value for key, value in told.items())
    return command(name, body)


def part(body: bytes, *, more: bool = False) -> bytes:
    return struct.pack("!BQ", 2 | more, len(body)) + body


def plain_hello(username: bytes, password: bytes) -> bytes:
    return command(b"HELLO", bytes([len(username)]) + username + bytes([len(password)]) + password)


def _both(route: bytes = b"") -> bytes:
    """A whole handshake without waiting for an answer, by either mechanism's commands."""
    return plain_hello(b"1 a@0", b"0" * 64) + ready(b"INITIATE", route)


def silent(number: int) -> Pieces:
    yield None


def noise(number: int) -> Pieces:
    while True:
        yield os.urandom(1000)


def no_mechanism(number: int) -> Pieces:
    yield greeting("NULL") + ready(b"READY")
    yield part(os.urandom(80))
    yield None


def wrong_proof(number: int) -> Pieces:
    yield greeting("PLAIN") + plain_hello(b"1 a@0", b"0" * 64)
    yield None


def claimed_routes(number: int) -> Pieces:
    """Those that libzmq would give to others next. Known: it counts up from a constant."""
    route = b"\0" + (0x6B8B4567 + number // 2).to_bytes(4, "big")
    if number % 2:
        yield greeting("NULL") + ready(b"READY", b"" if number % 4 == 1 else route)
    else:
        yield greeting("PLAIN") + _both(route)
    yield part(b"x")
    yield None


def endless_parts(number: int) -> Pieces:
    yield greeting("NULL") + ready(b"READY") if number % 2 else greeting("PLAIN") + _both()
    while True:
        yield part(bytes(1 << 16), more=True)


def endless_command(number: int) -> Pieces:
    yield greeting("PLAIN") + struct.pack("!BQ", 6, 1 << 20)
    for _ in range(15):
        yield bytes(1 << 16)
    yield None


def command_in_drops(number: int) -> Pieces:
    """In segments that no filter keeps back."""
    yield greeting("PLAIN") + struct.pack("!BQ", 6, 1 << 20)
    for _ in range(1 << 10):
        yield bytes(1000)
    yield None


# HTTP/2, as gRPC speaks it

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http_frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body


def call(stream: int, **metadata: str) -> bytes:
    """Begins the bridge's one method."""
    told = {":method": "POST", ":scheme": "http", ":path": "/hetero.Bridge/Frames", ":authority": "x"}
    told |= {"te": "trailers", "content-type": "application/grpc", **metadata}
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in told.items())
    return http_frame(1, 4, stream, block)


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def no_stream(number: int) -> Pieces:
    yield PREFACE + http_frame(4, 0, 0)
    yield None


def silent_streams(number: int) -> Pieces:
    yield PREFACE + http_frame(4, 0, 0) + b"".join(call(stream) for stream in range(1, 21, 2))
    yield None


def wrong_call(number: int) -> Pieces:
    yield PREFACE + http_frame(4, 0, 0) + call(1, claim="1 a@0", proof="0" * 64)
    yield None


def endless_headers(number: int) -> Pieces:
    yield PREFACE + http_frame(4, 0, 0) + http_frame(1, 0, 1, b"\0" + _text("x") + _text("y" * 100))
    while True:
        yield http_frame(9, 0, 1, (b"\0" + _text("x") + _text("y" * 100)) * 100)


ZMQ: dict[str, Callable[[int], Pieces]] = {
    one.__name__: one
    for one in (
        silent,
        noise,
        no_mechanism,
        wrong_proof,
        claimed_routes,
        endless_parts,
        endless_command,
        command_in_drops,
    )
}
GRPC: dict[str, Callable[[int], Pieces]] = {
    one.__name__: one for one in (silent, noise, no_stream, silent_streams, wrong_call, endless_headers)
}


def address_of(uri: str) -> tuple[str, int]:
    """For `socket.connect`."""
    host, _, port = uri.partition("://")[2].rpartition(":")
    return host, int(port)


BY_SCHEME = {"zmq": ZMQ, "grpc": GRPC}


class Crowd:
    """Strangers of one kind, in one thread; `turn` has each say its next piece. Answers are read and thrown away."""

    def __init__(self, pieces: Callable[[int], Pieces], uri: str, count: int) -> None:
        self._address, self._pieces = address_of(uri), pieces
        self._selector = selectors.DefaultSelector()
        self._numbers = itertools.count()
        self._due = [0.0] * count  # when each of those who are not there comes
        self.came = self.hung_up = 0

    @property
    def present(self) -> int:
        """Those who have not been hung up on."""
        return len(self._selector.get_map())

    def turn(self, timeout: float = 0.0, *, again: bool = True) -> None:
        """With `again` those come again who have been hung up on."""
        now = time.monotonic()
        while self._due and self._due[0] <= now:
            self._due.pop(0)
            self._come()
        for key, events in self._selector.select(timeout):
            try:
                self._talk(key, events)
            except OSError:
                self._leave(key)
                self.hung_up += 1
                if again:
                    self._due.append(now + _AGAIN_S)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._leave(key)
        self._selector.close()

    def _leave(self, key: selectors.SelectorKey) -> None:
        end = self._selector.unregister(key.fileobj).fileobj
        assert isinstance(end, socket.socket)
        end.close()

    def _come(self) -> None:
        end = socket.socket()
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            end.connect(self._address)
        self._selector.register(
            end, selectors.EVENT_READ | selectors.EVENT_WRITE, [self._pieces(next(self._numbers)), b""]
        )
        self.came += 1

    def _talk(self, key: selectors.SelectorKey, events: int) -> None:
        end = key.fileobj
        assert isinstance(end, socket.socket)
        if events & selectors.EVENT_READ:
            with contextlib.suppress(BlockingIOError):
                if not end.recv(1 << 16):
                    raise ConnectionResetError
        if events & selectors.EVENT_WRITE:
            pieces, rest = key.data
            rest = rest or next(pieces)
            if rest is None:
                self._selector.modify(end, selectors.EVENT_READ, key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[end.send(rest) :]
                key.data[1] = rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(ZMQ | GRPC))
    parser.add_argument("uri")
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    kinds = BY_SCHEME[options.uri.partition(":")[0]]
    crowd = Crowd(kinds[options.kind], options.uri, options.count)
    while True:
        crowd.turn(0.1)


if __name__ == "__main__":
    main()
