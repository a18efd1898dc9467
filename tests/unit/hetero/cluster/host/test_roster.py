"""Who of a host's ranks is silent, as its agent is there to hear them."""

from __future__ import annotations

import pytest

from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.words.word import Word
from hetero.cluster.fleet import Patience
from hetero.cluster.host.roster import Member, Roster
from hetero.words.orders import Configured, Ready
from tests.unit.bridge.system.test_awake import Hand

PATIENCE = Patience(start_s=20.0, rank_s=10.0)


@pytest.mark.parametrize("owes", [Ready, Configured, None], ids=["start", "answer", "step"])
def test_a_rank_is_silent_only_to_an_agent_that_listens(owes: type[Word] | None) -> None:
    hand = Hand()
    roster = Roster(AwakeClock(source=hand))
    ours, theirs = Pipe.pair()
    member = Member(RankId("big", 0), ours, owes=owes, leased=5)
    roster.members[member.rank] = member
    roster.heard(member)
    hand.at += 1000.0
    assert roster.silent(PATIENCE) == [], "the agent was away"
    waited = 0
    while not roster.silent(PATIENCE):
        hand.at += 0.5
        waited += 1
    assert waited * 0.5 == pytest.approx(member.patience_s(PATIENCE), abs=1.5)
    for pipe in (ours, theirs):
        pipe.close()
