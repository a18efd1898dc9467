"""HELLO, HELLO, READY, READY between two ends, with everything that crosses on a table."""

from __future__ import annotations

import pytest

from bridge.errors import WireError
from bridge.trust.handshake import Handshake
from bridge.trust.hello import Hello
from bridge.trust.identity import Identity
from bridge.trust.seal import Encrypted
from bridge.words.frame import EMPTY, FrameKind, Header
from tests.contract.fuzz import Wire


class End:
    """One side of a handshake."""

    def __init__(self, name: str, *, dials: str | None = None) -> None:
        self.identity, self.wire = Identity(name), Wire()
        self.handshake = Handshake(self.wire, 0.0, dials)

    def send_hello(self) -> None:
        self.handshake.send_hello(Hello(endpoint=self.identity.name, instance="i", sealed=True))

    def hear(self, other: End) -> Encrypted | Hello:
        """The oldest frame that the other has sent."""
        head, body = other.wire.sent.pop(0)
        header = Header.decode(head)
        if header.kind is FrameKind.HELLO:
            return self.handshake.hear_hello(header, memoryview(head), body)
        seal = self.handshake.hear_ready(header, memoryview(head), body, sealed=True)
        assert isinstance(seal, Encrypted)
        return seal

    def send_ready(self, peer: str, key: str) -> None:
        self.handshake.agree(self.identity.share(peer, key))
        self.handshake.send_ready()


def ready(key_of_a: str | None = None, key_of_b: str | None = None) -> tuple[End, End]:
    """Both have said HELLO and READY, each believing in the other's key, or in what it was told instead."""
    a, b = End("a@0", dials="b@0"), End("b@0")
    a.send_hello()
    b.hear(a)
    b.send_hello()
    a.hear(b)
    a.send_ready("b@0", key_of_b or b.identity.public)
    b.send_ready("a@0", key_of_a or a.identity.public)
    return a, b


def test_each_opens_what_the_other_seals() -> None:
    a, b = ready()
    ours, theirs = a.hear(b), b.hear(a)
    assert isinstance(ours, Encrypted)
    assert isinstance(theirs, Encrypted)
    head, body = ours.apply(Header(FrameKind.PING), EMPTY)
    theirs.open_into(Header(FrameKind.PING), memoryview(head), body, None)


@pytest.mark.parametrize("whose", ["key_of_a", "key_of_b"])
def test_a_key_that_was_changed_on_the_way_is_found_by_both(whose: str) -> None:
    a, b = ready(**{whose: Identity("z@0").public})
    for end, other in ((a, b), (b, a)):
        with pytest.raises(WireError, match="seal"):
            end.hear(other)


def test_the_same_two_never_have_the_same_key_twice() -> None:
    """What was recorded stays closed to whoever learns the endpoints' own keys later: each connection has its own."""
    a, b = End("a@0", dials="b@0"), End("b@0")
    said = []
    for _ in range(2):
        a.handshake, b.handshake = Handshake(a.wire, 0.0, "b@0"), Handshake(b.wire, 0.0)
        a.send_hello()
        b.hear(a)
        b.send_hello()
        a.hear(b)
        a.send_ready("b@0", b.identity.public)
        said.append(a.wire.sent.pop())
    assert said[0] != said[1]
    assert len({a.handshake._pair.public, a.identity.public}) == 2


def test_a_share_that_agrees_with_nothing_is_refused() -> None:
    b = End("b@0")
    a = End("a@0", dials="b@0")
    a.wire.send_frame(*a.handshake._seal.apply(*_hello_without_share()))
    b.hear(a)
    b.send_hello()
    with pytest.raises(WireError, match="share"):
        b.send_ready("a@0", a.identity.public)


def _hello_without_share() -> tuple[Header, memoryview]:
    text = Hello(endpoint="a@0", instance="i").model_dump_json().encode()
    return Header(FrameKind.HELLO, length=len(text)), memoryview(text)
