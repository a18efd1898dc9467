"""Throws bytes at an endpoint's TCP ports, below its frames: ZMTP and HTTP/2 as a hostile program may speak them.

    python -m tests.contract.fuzz_wire zmq|grpc [--inputs 100000] [--seed 0]

The endpoint must live, keep its memory and go on serving its peer. The number of the input after which it did not is
printed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
from collections import deque
from collections.abc import Callable

import psutil

from tests.contract import strangers
from tests.contract.bridge_hosts import Host, channel, cross, link

_OPEN, _LOOK_EVERY = 64, 100
_ODD = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    (1 << 14) - 1,
    1 << 14,
    (1 << 24) - 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 63) - 1,
    1 << 63,
)
_MECHANISMS = ("NULL", "PLAIN", "CURVE", "GSSAPI", "", "PLAINPLAINPLAINPLAIN")
_NAMES = (b"READY", b"HELLO", b"WELCOME", b"INITIATE", b"ERROR", b"PING", b"PONG", b"SUBSCRIBE", b"")


def zmtp(draw: random.Random) -> bytes:
    """A greeting, and what comes after it in any order."""
    after: list[Callable[[], bytes]] = [
        lambda: strangers.command(draw.choice(_NAMES), draw.randbytes(draw.randrange(64))),
        lambda: strangers.plain_hello(draw.randbytes(draw.randrange(200)), draw.randbytes(draw.randrange(200))),
        lambda: strangers.ready(draw.choice(_NAMES), draw.randbytes(draw.choice((0, 5, 255, 256)))),
        lambda: strangers.part(draw.randbytes(draw.randrange(200)), more=draw.random() < 0.5),
        lambda: bytes([draw.randrange(8)]) + draw.choice(_ODD).to_bytes(8, "big") + draw.randbytes(20),
    ]
    said = [strangers.greeting(draw.choice(_MECHANISMS))] if draw.random() < 0.9 else []
    return b"".join(said + [draw.choice(after)() for _ in range(draw.randrange(6))])


def http(draw: random.Random) -> bytes:
    """A preface, settings, and frames of any kind."""

    def frame() -> bytes:
        stream = draw.choice((0, 1, 1, 1, 2, 3, draw.choice(_ODD) & 0xFFFFFFFF))
        body = draw.choice((b"", bytes(4), bytes(8), draw.randbytes(draw.randrange(300))))
        made = strangers.http_frame(draw.randrange(12), draw.choice((0, 1, 4, 5, 8, 0x20, 0xFF)), stream, body)
        if draw.random() < 0.2:
            made = (draw.choice(_ODD) & 0xFFFFFF).to_bytes(3, "big") + made[3:]
        return made

    def call() -> bytes:
        return strangers.call(draw.choice((1, 3, 0, 2)), claim=str(draw.choice(_ODD)), proof="x" * draw.randrange(100))

    said = [strangers.PREFACE] if draw.random() < 0.9 else []
    said += [strangers.http_frame(4, 0, 0, draw.randbytes(6 * draw.randrange(4)))] if draw.random() < 0.9 else []
    return b"".join(said + [draw.choice((frame, frame, call))() for _ in range(draw.randrange(8))])


def damaged(draw: random.Random, data: bytes) -> bytes:
    """With a bit turned over, a number in the middle replaced, or cut short, or none of that."""
    changed = bytearray(data)
    if changed and draw.random() < 0.3:
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    if changed and draw.random() < 0.2:
        at = draw.randrange(len(changed))
        changed[at : at + 8] = draw.choice(_ODD).to_bytes(8, "big")
    return bytes(changed[: draw.randrange(len(changed) + 1)] if draw.random() < 0.2 else changed)


def run(scheme: str, count: int, seed: int) -> None:
    """Raises AssertionError with the number of the input after which the endpoint was not as it should be."""
    draw, make = random.Random(seed), {"zmq": zmtp, "grpc": http}[scheme]
    a, b = (Host(name, [scheme], process=True) for name in ("a@0", "b@0"))
    try:
        link(a, b, scheme)
        ends = channel(a.port(), b.port())
        assert cross(*ends, b"before") == b"before"
        assert b.process
        endpoint = psutil.Process(b.process.pid)
        before_bytes = endpoint.memory_info().rss
        address = strangers.address_of(b.uris[scheme])
        there: deque[socket.socket] = deque()
        for number in range(1, count + 1):
            there.append(_say(address, damaged(draw, make(draw))))
            if len(there) > _OPEN:
                there.popleft().close()
            if number % _LOOK_EVERY == 0 or number == count:
                assert cross(*ends, b"%d" % number) == b"%d" % number, number
                assert endpoint.memory_info().rss - before_bytes < strangers.MOST_BYTES[scheme], number
        for one in there:
            one.close()
    finally:
        for host in (a, b):
            host.close()


def _say(address: tuple[str, int], data: bytes) -> socket.socket:
    one = socket.create_connection(address)
    one.settimeout(0.1)
    with contextlib.suppress(OSError):
        one.sendall(data)
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scheme", choices=["zmq", "grpc"])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(options.scheme, options.inputs, options.seed)
    print(f"{options.inputs} inputs: the endpoint lives")


if __name__ == "__main__":
    main()
