"""Whose messages overtake others."""

from __future__ import annotations

import pytest

from bridge.endpoint.sending_end import SendingEnd
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.loop import Loop
from bridge.words.channel import ChannelSpec
from bridge.words.port import ChannelReport, Send

SHORT, LONG = 1 << 16, (1 << 16) + 1


@pytest.mark.parametrize(
    ("purpose", "nbytes", "overtakes"),
    [
        ("activation", SHORT, True),
        ("control", SHORT, True),
        ("sync", SHORT, False),
        ("activation", LONG, False),
        ("sync", LONG, False),
    ],
)
def test_short_messages_overtake_bulk_but_those_of_state_go_as_they_were_given(
    purpose: str, nbytes: int, overtakes: bool
) -> None:
    """What overtakes is handed to a stream at once, where bulk waits for a connection first."""
    spec = ChannelSpec(0, purpose, "one", RankId("a", 0), RankId("b", 0), nbytes, 1)
    loop, reports = Loop(), list[ChannelReport]()
    link = Link("peer", loop)
    end = SendingEnd(spec, SlotRing(nbytes, 1), link, reports.append)
    end.on_credit(1)
    end.send_message(Send(spec.id, slot=0, nbytes=nbytes, filled=nbytes))
    assert (link.bytes_sent > 0) == overtakes
    end.close()
    loop.close()
