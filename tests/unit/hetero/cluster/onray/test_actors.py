"""What the driver makes of agents that Ray has lost."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from bridge.system.awake import AwakeClock
from hetero.cluster.control.events import Event, Severity, Trouble
from hetero.cluster.onray.actors import RayAgents, _Listening
from tests.unit.bridge.system.test_awake import Hand


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("the node was low on memory")])
def test_an_agent_that_is_lost_is_trouble_of_its_host(monkeypatch: pytest.MonkeyPatch, error: RayError) -> None:
    def get(_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda calls, **_: (calls, []))
    agents = RayAgents()
    agents._calls["call"] = _Listening("big@0", 0.0, patience_s=10.0)
    (told,) = agents.receive(timeout=0.0)
    assert isinstance(told, Trouble)
    assert (told.host, told.severity) == ("big@0", Severity.DIED)
    assert "died" in told.cause


def test_an_agent_is_late_only_to_a_driver_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "wait", lambda calls, **_: ([], calls))
    hand = Hand()
    agents = RayAgents()
    agents._clock = AwakeClock(source=hand)
    agents._calls["call"] = _Listening("big@0", 0.0, patience_s=10.0)
    hand.at += 1000.0
    assert agents.receive(timeout=0.0) == [], "the driver was away"
    told = []
    for _ in range(100):
        hand.at += 0.2
        told += agents.receive(timeout=0.0)
    (late,) = told
    assert isinstance(late, Trouble)
    assert late.cause == "has not answered for 10 s"


def test_an_agent_that_answers_while_others_are_heard_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    hand, there, agents = Hand(), {"quick"}, RayAgents()
    agents._clock = AwakeClock(source=hand)
    agents._calls = {call: _Listening(f"{call}@0", 0.0, patience_s=10.0) for call in ("quick", "slow", "silent")}

    def hear(call: str) -> list[Event]:
        """Writes for long what has come."""
        del agents._calls[call]
        there.add("slow")
        for _ in range(100):
            hand.at += 0.2
            agents._clock.now()
        return []

    def wait(calls: list[str], **_: Any) -> tuple[list[str], list[str]]:
        return [call for call in calls if call in there], [call for call in calls if call not in there]

    monkeypatch.setattr(agents, "_heard", hear)
    monkeypatch.setattr(ray, "wait", wait)
    assert [told.host for told in agents.receive(timeout=0.0) if isinstance(told, Trouble)] == ["silent@0"]
    assert list(agents._calls) == ["slow"]
