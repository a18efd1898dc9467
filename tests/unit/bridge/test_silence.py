"""What an endpoint makes of silence, when it was stopped itself."""

from __future__ import annotations

from typing import Any

from bridge.link.stream import Lane
from bridge.system.awake import AwakeClock
from bridge.trust.handshake import Door
from bridge.trust.hello import Hello
from tests.unit.bridge.system.test_awake import Hand


class Connection:
    peer = "somebody"
    shares_memory = False

    def send(self, *_: Any) -> None:
        pass


def test_a_peer_is_silent_only_to_who_listens() -> None:
    hand = Hand()
    lane = Lane(AwakeClock(longest_s=2.0, source=hand))
    hand.at += 1000.0
    assert lane.silence_s == 2.0
    hand.at += 1.5
    assert lane.silence_s == 3.5
    lane.heard()
    assert lane.silence_s == 0.0


def test_a_stranger_is_late_only_to_who_stands_at_the_door() -> None:
    hand = Hand()
    door = Door(None, lambda hello: hello, lambda *_: None, AwakeClock(longest_s=2.0, source=hand))
    stranger: Any = Connection()
    ours = Hello(endpoint="a", instance="1", lane=0, resumes="", expects=0, sealed=False)
    door.dial(stranger, "b", ours)
    hand.at += 1000.0
    assert door.waiting_for(4.0) == []
    for _ in range(3):
        hand.at += 1.0
        late = door.waiting_for(4.0)
    assert late == [stranger]
