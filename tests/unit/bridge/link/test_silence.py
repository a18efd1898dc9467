"""What an endpoint makes of silence, when it was stopped itself."""

from __future__ import annotations

from typing import Any

from bridge.link.link import Link
from bridge.link.pace import LinkPace
from bridge.link.stream import Stream
from bridge.system.awake import AwakeClock
from bridge.trust.handshake import Handshakes
from bridge.trust.hello import Hello
from bridge.trust.seal import Unchecked
from tests.unit.bridge.system.test_awake import Hand


class Connection:
    peer = "somebody"
    shares_memory = False

    def send_frame(self, *_: Any) -> None:
        pass


def test_a_peer_is_silent_only_to_who_listens() -> None:
    hand = Hand()
    stream = Stream(AwakeClock(longest_s=2.0, source=hand))
    hand.at += 1000.0
    assert stream.silence_s == 2.0
    hand.at += 1.5
    assert stream.silence_s == 3.5
    stream.heard()
    assert stream.silence_s == 0.0


def test_what_an_emulated_line_delays_is_no_silence_once_it_is_connected() -> None:
    hand = Hand()
    no_loop: Any = None
    link = Link("b", no_loop, AwakeClock(longest_s=2.0, source=hand))
    link.run_at(LinkPace(1e9, delay_s=3.0))
    stream = link.stream(0)
    hand.at += 1.0
    assert link.silence_s(stream) == 1.0
    connection: Any = Connection()
    stream.attach(connection, Unchecked(), 0)
    for silence_s in (0.0, 1.0, 3.0):
        hand.at += 2.0
        assert link.silence_s(stream) == silence_s


def test_a_stranger_is_late_only_to_who_listens_to_it() -> None:
    hand = Hand()
    handshakes = Handshakes(None, lambda hello: hello, lambda *_: None, AwakeClock(longest_s=2.0, source=hand))
    stranger: Any = Connection()
    ours = Hello(endpoint="a", instance="1", stream=0, resumes="", expects=0, sealed=False)
    handshakes.dial(stranger, "b", ours)
    hand.at += 1000.0
    assert handshakes.waiting_for(4.0) == []
    for _ in range(3):
        hand.at += 1.0
        late = handshakes.waiting_for(4.0)
    assert late == [stranger]
