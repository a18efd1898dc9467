"""Whatever a rank says, in whatever order: nothing is raised, it is served or refused by name, and nothing is left."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoint.router import Router
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.loop import Loop
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import AskStats, Failed
from bridge.words.port import Close, CloseEpoch, Fill, Filled, Open, Post, Send
from bridge.words.release import RELEASE, Release
from bridge.words.word import Word, encode
from tests.examples import out_of_100

ME, PEER = RankId("a", 0), RankId("b", 0)
SPECS = [
    ChannelSpec(epoch, "sync", "x", source, target, slot_bytes, 2)
    for epoch, slot_bytes in ((0, 64), (1, 1 << 17))
    for source, target in ((ME, PEER), (PEER, ME))
] + [ChannelSpec(0, "sync", "x", PEER, RankId("c", 0), 64, 2)]

OPEN = SPECS[:2]
"""From the first on."""

channels = st.sampled_from([spec.id for spec in (*OPEN, *OPEN, *SPECS)])
slots = st.sampled_from([0, 1, 0, 1, -1, 2])
sizes = st.sampled_from([1, 64, 1, 64, 0, -1, 65, 1 << 40])
sense: st.SearchStrategy[Word] = st.one_of(
    st.builds(Open, st.sampled_from(SPECS)),
    st.builds(Post, channels, slots),
    st.builds(Send, channels, slots, sizes, sizes),
    st.builds(Fill, channels, slots, sizes),
    st.builds(Close, channels),
    st.builds(CloseEpoch, st.integers(-1, 2)),
    st.sampled_from([AskStats(), Filled(1, 1), Release(RELEASE)]),
)
nonsense = st.one_of(st.binary(max_size=40).map(lambda body: _frame(body)), st.binary(max_size=40))
frames = st.one_of(*[sense.map(lambda word: _frame(encode(word)))] * 9, nonsense)
memory = st.sampled_from(["none", "none", "its own", "its own", "too small", "no file"])


def _frame(body: bytes) -> bytes:
    return struct.pack("!IB", len(body), 1 if body.startswith(b"Open") else 0) + body


def _descriptor(what: str) -> int:
    if what == "no file":
        return os.eventfd(0)
    ring = SlotRing(1 << 17 if what == "its own" else 1, 2)
    fd = os.dup(ring.fd)
    ring.close()
    return fd


@given(st.lists(st.tuples(frames, memory), max_size=12))
@out_of_100(150)
def test_whatever_a_rank_says_nothing_is_raised_and_nothing_left(said: list[tuple[bytes, str]]) -> None:
    before = _descriptors()
    loop, (ours, theirs) = Loop(), socket.socketpair()
    reports: list[Word] = []
    link = Link("b@0", loop)
    router = Router(loop, lambda rank: link, reports.append)
    router.attach(ME, theirs.detach())
    ours.sendall(_frame(encode(Release(RELEASE))))
    for data, what in [*((_frame(encode(Open(spec))), "its own") for spec in OPEN), *said]:
        with suppress(BrokenPipeError):
            _send(ours, data, what)
        if ME in router:
            router._ranks[ME]._turn()
    refused = [report.error for report in reports if isinstance(report, Failed)]
    assert len(refused) == len(reports) == (ME not in router)
    assert all(error.rule and error.rule.startswith("rank a:0 says it") for error in refused)
    router.close()
    link.lose()
    loop.close()
    ours.close()
    assert _descriptors() == before


def _send(end: socket.socket, data: bytes, what: str) -> None:
    if what == "none" or not data:
        end.sendall(data)
        return
    fd = _descriptor(what)
    try:
        socket.send_fds(end, [data], [fd])
    finally:
        os.close(fd)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
