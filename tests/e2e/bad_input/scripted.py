"""`hetero train` in this process, with hosts that exist in a script alone: what they answer is chosen by a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from hetero.cluster import needs
from hetero.cluster.events import Event, Trouble
from hetero.cluster.fleet import FleetSpec, HostSpec
from hetero.cluster.instructions import ConfigureRanks, News, Order
from hetero.cluster.needs import Needs
from hetero.job.measuring import Measured
from tests.unit.hetero.cluster.fake_hosts import FakeHosts


class ScriptedHosts(FakeHosts):
    """Carries orders to hosts that are healthy but for `fingerprints`, the text that each of them reads, `reach`, why
    each cannot use a folder that all share, and `troubles`, what comes of configuring its ranks."""

    def __init__(self, fingerprints: dict[str, str], reach: dict[str, str], troubles: dict[str, Trouble]) -> None:
        self._fingerprints, self._reach, self._troubles = fingerprints, reach, troubles
        self._events: list[Event] = []

    @contextlib.contextmanager
    def agents(self, fleet: FleetSpec, wanted: Needs, heard: Callable[[News], None]) -> Iterator[ScriptedHosts]:
        """In place of `ray_agents`."""
        FakeHosts.__init__(self, fleet)
        self.fingerprints, self._needs = self._fingerprints, wanted
        yield self

    def start(self, hosts: tuple[HostSpec, ...]) -> None:  # type: ignore[override]
        needs.prepare({host.id: _Actor(self._reach.get(host.id)) for host in hosts}, self._needs, 1.0)

    def send(self, host: str, order: Order) -> None:
        trouble = self._troubles.get(host) if isinstance(order, ConfigureRanks) else None
        self._events += [trouble] if trouble else self._obey(host, order)

    def receive(self, timeout: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        self._events.clear()


class _Actor:
    """Its methods are called at once, and the answer stands for the call."""

    def __init__(self, why: str | None) -> None:
        self.reach, self.node = _Method(("a machine", why)), _Method("head")


class _Method:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def remote(self, *_: object) -> object:
        return self._answer


def script(
    monkeypatch: pytest.MonkeyPatch,
    *,
    fingerprints: dict[str, str] | None = None,
    reach: dict[str, str] | None = None,
    troubles: dict[str, Trouble] | None = None,
) -> None:
    """Lets `hetero train` of this process find such hosts."""
    hosts = ScriptedHosts(fingerprints or {}, reach or {}, troubles or {})
    monkeypatch.setattr("hetero.train.ray_runtime", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("hetero.train.ray_agents", hosts.agents)
    monkeypatch.setattr("hetero.train.measure", lambda *_: Measured(1.0, None))
    monkeypatch.setattr(needs, "_answers", lambda calls, _: calls)
    monkeypatch.setattr(needs, "_hosts_elsewhere", lambda *_: [])
