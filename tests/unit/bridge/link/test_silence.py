"""What an endpoint makes of silence, when it was stopped itself."""

from __future__ import annotations

from typing import Any

from bridge.link.stream import Stream
from bridge.system.awake import AwakeClock
from bridge.trust.handshake import Handshakes
from bridge.trust.hello import Hello
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
