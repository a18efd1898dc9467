"""Feeds an endpoint with what no endpoint would say, by mutation of what one would.

    python -m tests.contract.fuzz [--inputs 1000000] [--seed 0]

Whatever comes, nothing may be raised, and no more memory taken than the frame itself has. An input that breaks that is
printed, to be kept in CORPUS for good.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

from bridge.endpoint.peers import Peers
from bridge.endpoint.router import Router
from bridge.system.loop import Loop
from bridge.transports.transport import Connection
from bridge.trust.handshake import Handshake
from bridge.trust.hello import Hello
from bridge.trust.identity import Identity
from bridge.trust.seal import Checked
from bridge.words.endpoint import Introduce, PeerSpec
from bridge.words.frame import EMPTY, HEADER_BYTES, MOST_TEXT_BYTES, FrameKind, Header
from bridge.words.word import Word

CORPUS: tuple[tuple[str, str], ...] = (
    ("", ""),
    ("48420201" + "00" * 76, ""),
    ("48420201" + "ff" * 76, "00"),
    ("48420210" + "ff" * 76, "7b7d"),
)
"""Head and body of inputs that once were trouble, or well might be, in hex."""


class Wire(Connection):
    """A connection that keeps what was sent."""

    def __init__(self) -> None:  # of no transport
        self.peer = "the fuzzer"
        self.sent: list[tuple[bytes, memoryview]] = []

    def send_frame(self, head: bytes, body: memoryview) -> None:
        self.sent.append((head, body))

    def close(self) -> None:
        pass


class Victim:
    """An endpoint with one peer, `a@0`, that has said HELLO and READY over `known`; strangers come over new wires."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.reports: list[Word] = []
        router = Router(self.loop, lambda rank: None, self.reports.append)
        self.peers = Peers(self.loop, router, self.reports.append, patience_s=1000.0)
        self.peers.listen("b@0", "127.0.0.1", [])
        self._peer = Identity("a@0")
        self.peers.introduce(Introduce({"a@0": PeerSpec(None, self._peer.public)}, {"a:0": "a@0"}))
        self.known = self._meet()

    def hear(self, head: bytes, body: bytes, *, stranger: bool) -> None:
        """One frame. Whoever was cut for the one before comes again."""
        if not stranger and self.known not in self.peers._established:
            self.known = self._meet()
        self.peers.on_frame(Wire() if stranger else self.known, memoryview(head), memoryview(body))
        self.reports.clear()

    def close(self) -> None:
        self.peers.close()
        self.loop.close()

    def _meet(self) -> Wire:
        near, far = Wire(), Wire()
        handshake = Handshake(far, 0.0, "b@0")
        handshake.send_hello(Hello(endpoint="a@0", instance=f"{random.random()}"))
        self._carry(far, near)
        head, body = near.sent[0]
        handshake.hear_hello(Header.decode(head), memoryview(head), body)
        handshake.agree(self._peer.share("b@0", self.peers.identity.public))
        handshake.send_ready()
        self._carry(far, near)
        near.sent.clear()
        return near

    def _carry(self, far: Wire, near: Wire) -> None:
        """What was sent at the far end arrives."""
        head, body = far.sent.pop()
        self.peers.on_frame(near, memoryview(head), body)


def inputs(seed: int) -> Iterator[tuple[bytes, bytes, bool]]:
    """Heads and bodies without end: frames with odd fields, honest checksums or none, and bits turned over."""
    draw = random.Random(seed)
    odd = (0, 1, 2, 79, MOST_TEXT_BYTES, MOST_TEXT_BYTES + 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
    hello = Hello(endpoint="a@0", instance="i").model_dump_json().encode()
    while True:
        body = draw.choice((b"", b"x", b"{}", hello, draw.randbytes(draw.randrange(300))))
        numbers = [draw.choice(odd) if draw.random() < 0.4 else draw.randrange(4) for _ in range(8)]
        length = len(body) if draw.random() < 0.8 else draw.choice(odd) & 0xFFFFFFFF
        header = Header(draw.choice(list(FrameKind)), draw.choice(odd) & 0xFFFFFFFF, *numbers, length)
        head, sealed = Checked().apply(header, memoryview(body)) if draw.random() < 0.7 else (header.encode(), EMPTY)
        head, body = bytearray(head), bytearray(sealed or body)
        for part in (head, body):
            if part and draw.random() < 0.2:
                part[draw.randrange(len(part))] ^= 1 << draw.randrange(8)
        if draw.random() < 0.02:
            head = head[: draw.randrange(HEADER_BYTES)]
        yield bytes(head), bytes(body), draw.random() < 0.5


def run(count: int, seed: int) -> None:
    """Raises what the endpoint raises, with the input that made it."""
    victims = Victim(), Victim()
    for head, body in CORPUS:
        for victim in victims:
            victim.hear(bytes.fromhex(head), bytes.fromhex(body), stranger=True)
    for number, (head, body, stranger) in zip(range(count), inputs(seed), strict=False):
        victim = victims[number % 2]
        try:
            victim.hear(head, body, stranger=stranger or victim is victims[1])
        except BaseException as error:
            raise AssertionError(f"input {number}: {head.hex()} {body.hex()}") from error
    for victim in victims:
        victim.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(options.inputs, options.seed)
    print(f"{options.inputs} inputs: nothing was raised")


if __name__ == "__main__":
    main()
