"""`hetero train` in this process, with hosts that exist in a script alone: what they answer is chosen by a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.events import Event, PiecesSaved, StepReported, Trouble
from hetero.cluster.control.instructions import HostOrder
from hetero.cluster.fleet import FleetSpec, HostSpec
from hetero.cluster.onray import shared_files
from hetero.cluster.onray.shared_files import Needs
from hetero.job.planning.measuring import Measurements
from hetero.monitoring.notice import Notice
from hetero.monitoring.record import merge_ranks
from hetero.words.orders import Configure, Lease
from tests.unit.hetero.cluster.fake_hosts import FakeHosts
from tests.unit.hetero.monitoring.reports import TOTALS, rank_report

Totals = Callable[[int], dict[str, object]]


class ScriptedHosts(FakeHosts):
    """Carries orders to hosts that are healthy but for `fingerprints`, the text that each of them reads, `reach`, why
    each cannot use a folder that all share, `troubles`, what comes of configuring its ranks, and `totals`, what becomes
    of a step; checkpoints have no pieces."""

    notes, carries_checkpoints = (), False

    def __init__(
        self, fingerprints: dict[str, str], reach: dict[str, str], troubles: dict[str, Trouble], totals: Totals
    ) -> None:
        self._fingerprints, self._reach, self._troubles, self._totals = fingerprints, reach, troubles, totals
        self._events: list[Event] = []
        self._next: dict[str, int] = {}

    @contextlib.contextmanager
    def agents(self, fleet: FleetSpec, wanted: Needs, heard: Callable[[Notice], None]) -> Iterator[ScriptedHosts]:
        """In place of `ray_agents`."""
        FakeHosts.__init__(self, fleet)
        self.fingerprints, self._needs = self._fingerprints, wanted
        yield self

    def start(self, hosts: tuple[HostSpec, ...]) -> None:  # type: ignore[override]
        shared_files.prepare({host.id: _Actor(self._reach.get(host.id)) for host in hosts}, self._needs, 1.0)

    def send(self, host: str, order: HostOrder) -> None:
        trouble = self._troubles.get(host) if isinstance(order, Configure) else None
        self._events += [trouble] if trouble else self._obey(host, order)
        if isinstance(order, Configure):
            self._spec = order.spec
            self._next[host] = self._spec.start
        elif isinstance(order, Lease):
            self._events += [event for step in range(self._next[host], order.until) for event in self._step(host, step)]
            self._next[host] = order.until

    def _step(self, host: str, step: int) -> Iterator[Event]:
        """What is heard of a step: first that it was saved, as from real hosts."""
        if self._spec.saves_at(step + 1):
            CheckpointStore(Path(str(self._spec.checkpoint_folder))).folder(step + 1).mkdir(exist_ok=True)
            yield PiecesSaved(host, step + 1, [])
        pool = host.partition("@")[0]
        nothing: dict[str, object] = {"sent": {}, "received": {}}
        totals = TOTALS | self._totals(step)
        count = self._spec.pools[pool].count
        reports = [rank_report(pool, index, step=step, totals=totals, **nothing) for index in range(count)]
        yield StepReported(merge_ranks(host, reports))

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
    totals: Totals = lambda _: {},
) -> None:
    """Lets `hetero train` of this process find such hosts."""
    hosts = ScriptedHosts(fingerprints or {}, reach or {}, troubles or {}, totals)
    monkeypatch.setattr("hetero.run.ray_runtime", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("hetero.run.ray_agents", hosts.agents)
    monkeypatch.setattr("hetero.run.measure", lambda *_: Measurements(1.0, None))
    monkeypatch.setattr(shared_files, "_answers", lambda calls, _: calls)
    monkeypatch.setattr(shared_files, "_hosts_elsewhere", lambda *_: [])
