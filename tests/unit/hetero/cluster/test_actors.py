"""What the driver makes of agents that Ray has lost."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from hetero.cluster.actors import RayAgents, _Listening
from hetero.cluster.events import Severity, Trouble


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("the node was low on memory")])
def test_an_agent_that_is_lost_is_trouble_of_its_host(monkeypatch: pytest.MonkeyPatch, error: RayError) -> None:
    def get(_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda calls, **_: (calls, []))
    agents = RayAgents()
    agents._calls["call"] = _Listening("big@0", time.monotonic(), patience_s=10.0)
    (told,) = agents.receive(timeout=0.0)
    assert isinstance(told, Trouble)
    assert (told.host, told.severity) == ("big@0", Severity.DIED)
    assert "died" in told.cause
