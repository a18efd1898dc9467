"""What an endpoint makes of a rank that says what makes no sense: that rank's end, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from bridge.endpoint.local_rank import LocalRank
from bridge.errors import PeerLost, PipeClosed, WordError
from bridge.port.pipe import Pipe
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.loop import Loop
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import AskStats, Attach, Attached, Failed, Introduce, ProbeLink, Stats
from bridge.words.port import Close, CloseEpoch, Fill, Open, Post, Send
from bridge.words.release import RELEASE, Release
from bridge.words.word import Word, encode
from tests.contract.bridge_hosts import Host, channel, cross
from tests.patience import WAIT_S

WRONG, GOOD, OTHER = (RankId("a", index) for index in range(3))
OUT = ChannelSpec(0, "sync", "out", WRONG, GOOD, 64, 2)
IN = ChannelSpec(0, "sync", "in", GOOD, WRONG, 64, 2)


@dataclass(frozen=True)
class Gossip(Word):
    """Nothing that an endpoint has heard of."""


class Speaker:
    """A rank that says what it likes."""

    def __init__(self, host: Host) -> None:
        self.socket, theirs = socket.socketpair()
        host.control.send_word(Attach(WRONG), [theirs.fileno()])
        theirs.close()
        assert host.expect(Attached).rank == WRONG
        self.pipe = Pipe(self.socket)

    def opens(self, spec: ChannelSpec) -> None:
        ring = SlotRing(spec.slot_bytes, spec.slots)
        self.pipe.send_word(Open(spec), [ring.fd])
        ring.release_fd()

    def says(self, *words: Word) -> None:
        for word in words:
            self.pipe.send_word(word)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host("a@0", [])
    yield host
    host.close()


def short_file(speaker: Speaker) -> None:
    fd = os.memfd_create("short")
    speaker.pipe.send_word(Open(OUT), [fd])
    os.close(fd)


def file_that_may_shrink(speaker: Speaker) -> None:
    fd = os.memfd_create("soft")
    os.ftruncate(fd, 1 << 20)
    speaker.pipe.send_word(Open(OUT), [fd])
    os.close(fd)


def no_file(speaker: Speaker) -> None:
    near, far = socket.socketpair()
    speaker.pipe.send_word(Open(replace(OUT, slot_bytes=0)), [near.fileno()])
    near.close()
    far.close()


def opened(*words: Word) -> Callable[[Speaker], None]:
    """Opens both channels first."""

    def speak(speaker: Speaker) -> None:
        speaker.opens(OUT)
        speaker.opens(IN)
        speaker.says(*words)

    return speak


NONSENSE: dict[str, tuple[Callable[[Speaker], object], str]] = {
    "a word for others": (lambda it: it.says(AskStats()), "AskStats"),
    "a word that nobody knows": (lambda it: it.pipe._push(_frame(b"Nonsense {}"), []), "Nonsense"),
    "a kind of words": (lambda it: it.pipe._push(_frame(b'ChannelReport {"channel":1}'), []), "ChannelReport"),
    "no word": (lambda it: it.pipe._push(_frame(b"\xff\xfe"), []), "word"),
    "a word without end": (lambda it: it.pipe._push(struct.pack("!IB", 1 << 31, 0) + b"Post ", []), "pipe.bytes"),
    "no slots": (lambda it: it.says(Open(OUT)), "Open.spec"),
    "slots that are too small": (short_file, "Open.spec"),
    "slots that are none": (no_file, "Open.spec"),
    "slots that may go": (file_that_may_shrink, "Open.spec"),
    "others' channel": (lambda it: it.opens(replace(OUT, source=GOOD, target=OTHER)), "Open.spec"),
    "a channel twice": (lambda it: (it.opens(OUT), it.opens(OUT)), "Open.spec"),
    "a slot that is none": (opened(Post(IN.id, 2)), "Post.slot"),
    "a slot below none": (opened(Send(OUT.id, -1, 1, 1)), "Send.slot"),
    "a slot twice": (opened(Post(IN.id, 1), Post(IN.id, 1)), "Post.slot"),
    "a message twice": (opened(Send(OUT.id, 0, 1, 1), Send(OUT.id, 0, 1, 1)), "Send.slot"),
    "a message that is longer than its slot": (opened(Send(OUT.id, 0, 65, 1)), "Send.nbytes"),
    "a message that is fuller than it is long": (opened(Send(OUT.id, 0, 1, 2)), "Send.nbytes"),
    "to fill what is no message": (opened(Fill(OUT.id, 0, 1)), "Fill.filled"),
    "to fill too far": (opened(Send(OUT.id, 0, 8, 1), Fill(OUT.id, 0, 9)), "Fill.filled"),
    "to send where it receives": (opened(Send(IN.id, 0, 1, 1)), "Send.channel"),
    "to post where it sends": (opened(Post(OUT.id, 0)), "Post.channel"),
}  # fmt: skip


def _frame(body: bytes) -> bytes:
    return struct.pack("!IB", len(body), 0) + body


@pytest.mark.parametrize("what", NONSENSE)
def test_a_rank_that_makes_no_sense_ends_alone_and_is_named(what: str, host: Host) -> None:
    ours, theirs, speaker = host.port(1), host.port(2), Speaker(host)
    ends = channel(ours, theirs)
    waits = ours.open(replace(IN, name="waits")).send_message(0, 1)
    speaker.opens(replace(IN, name="waits"))
    speak, key = NONSENSE[what]
    speak(speaker)
    error = host.expect(Failed).error
    assert error.type == "WordError"
    assert key in f"{error.key} = {error.value}"
    assert error.rule is not None
    assert error.rule.startswith("rank a:0 says it: ")
    assert cross(*ends, b"go on") == b"go on"
    with pytest.raises(PeerLost, match="a:0 has ended: its endpoint does not serve it any more"):
        waits.wait(WAIT_S)
    words = _said_to(speaker.pipe)
    assert [word.error for word in words if isinstance(word, Failed)] == [error]


def _said_to(pipe: Pipe) -> list[Word]:
    """Until the other end closes."""
    words: list[Word] = []
    with contextlib.suppress(PipeClosed):
        while True:
            words.append(pipe.recv_word(WAIT_S)[0])
    return words


def test_a_rank_of_another_release_ends_alone(host: Host) -> None:
    ends = channel(host.port(1), host.port(2))
    speaker = Speaker(host)
    speaker.socket.sendall(_frame(encode(Release("0.0.9"))))
    error = host.expect(Failed).error
    assert (error.type, error.key, error.value) == ("ReleaseDiffers", "release", "0.0.9")
    assert RELEASE in str(error.rule)
    assert cross(*ends, b"go on") == b"go on"


def test_its_port_says_why(host: Host) -> None:
    port, _ = host.port(), host.port(1)
    ticket = port.open(OUT).send_message(0, 1)
    port.tell(Gossip())
    with pytest.raises(WordError, match="rank a:0 says it"):
        ticket.wait(WAIT_S)
    host.expect(Failed)
    port.tell(Gossip())
    with pytest.raises(WordError, match="rank a:0 says it"):
        port.open(IN).post_recv(0).wait(WAIT_S)


def test_a_rank_reaches_no_other_s_channels(host: Host) -> None:
    sender, receiver = channel(host.port(1), host.port(2))
    assert cross(sender, receiver, b"before") == b"before"
    speaker, number = Speaker(host), sender.spec.id
    speaker.says(Post(number, 0), Send(number, 0, 1, 1), Close(number), Close(number), Gossip())
    host.expect(Failed)
    assert cross(sender, receiver, b"after") == b"after"


def test_an_epoch_that_one_rank_closes_goes_on_for_the_others(host: Host) -> None:
    """Credit that comes before its channel is opened is kept for it."""
    source, target, speaker = host.port(1), host.port(2), Speaker(host)
    speaker.says(CloseEpoch(10**6), Gossip())
    host.expect(Failed)
    spec = ChannelSpec(3, "activation", "x", source.rank, target.rank, 64, 1)
    receiver = target.open(spec)
    arrival = receiver.post_recv(0)
    host.control.send_word(AskStats())
    host.expect(Stats)
    source.open(spec).send_message(0, 1).wait(WAIT_S)
    arrival.wait(WAIT_S)


@pytest.mark.parametrize(
    ("order", "key"),
    [(Attach(WRONG), "Attach.rank"), (ProbeLink("z@9", 1), "peer"), (Introduce({}, {"a": "z@9"}), "routes")],
)
def test_an_order_that_makes_no_sense_is_reported_and_survived(order: Word, key: str, host: Host) -> None:
    host.control.send_word(order)
    assert host.expect(Failed).error.key == key
    host.control.send_word(AskStats())
    host.expect(Stats)


def test_descriptors_that_nobody_takes_are_closed(host: Host) -> None:
    port, before = host.port(), len(os.listdir("/proc/self/fd"))
    for epoch in range(50):
        fd = os.memfd_create("gift")
        port.tell(CloseEpoch(epoch), [fd])
        os.close(fd)
    host.control.send_word(AskStats())
    host.expect(Stats)
    end = time.monotonic() + WAIT_S
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_rank_that_says_much_at_once_takes_turns_with_others() -> None:
    loop, (ours, theirs) = Loop(), socket.socketpair()
    heard: list[Word] = []
    rank = LocalRank(WRONG, theirs.detach(), loop, lambda _, word, fds: heard.append(word), lambda *_: None)
    ours.sendall(b"".join(_frame(encode(word)) for word in (Release(RELEASE), *map(Close, range(1000)))))
    at_first: list[int] = []

    def look() -> None:
        at_first.append(len(heard))
        if len(heard) == 1000:
            loop.stop()
        else:
            loop.call_soon(look)

    loop.call_soon(look)
    loop.run()
    turns = [after - before for before, after in zip([0, *at_first], at_first, strict=False)]
    assert max(turns) <= 128, "others wait for one rank's words"
    assert heard == [Close(number) for number in range(1000)]
    rank.close()
    ours.close()
    loop.close()
