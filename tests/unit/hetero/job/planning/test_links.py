"""Which links are measured before a plan is made, and what then counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest

from hetero.cluster.fleet import FleetSpec
from hetero.cluster.options import fleet_of
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.judging import MeasuredRun, judge
from hetero.job.planning.links import ASSUMED_GBIT_PER_S, ASSUMED_RTT_MS, Probed, unknown_links
from hetero.job.planning.measuring import measure
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import topology
from hetero.job.run.spec import fleet_links
from tests.architecture.tree import ROOT

REAL = {name: f"pools.{name}.emulate=null" for name in ("nvidia", "ascend", "kunlun")}
CPU = "pools={a: {family: cpu, chip: cpu, count: 1}, b: {family: cpu, chip: cpu, count: 1}}"
ROWS = [
    {"source": "a", "target": "b", "bytes_per_s": 3e8, "rtt_s": 0.002, "cpu_s_per_gb": 0.7, "streams": 4},
    {"source": "b", "target": "a", "bytes_per_s": 2e8, "rtt_s": 0.004, "cpu_s_per_gb": 0.8, "streams": 4},
]


def _job(*settings: str) -> Job:
    return load_job(Path(ROOT / "configs" / "runs" / "auto.yaml"), settings)


def _two(*links: str) -> Job:
    """Two real pools, and what is said of their link."""
    return _job(CPU, f"bridge={{links: [{', '.join(links)}]}}")


def test_links_with_an_emulated_end_are_measured_only_where_nothing_is_said() -> None:
    assert not unknown_links(_job("bridge={}"))
    assert unknown_links(_job("bridge={}", REAL["nvidia"])) == [("nvidia", "ascend"), ("nvidia", "kunlun")]
    said = "bridge={links: [{between: [ascend, nvidia], rtt_ms: 0.1}]}"
    assert unknown_links(_job(said, REAL["nvidia"])) == [("nvidia", "kunlun")]


@pytest.mark.parametrize("said", ["", "{between: [b, a], rtt_ms: 0.1}", "{between: [a, b], gbit_per_s: 1}"])
def test_real_links_are_measured_unless_all_is_said(said: str) -> None:
    assert unknown_links(_two(said)) == [("a", "b")]


def test_what_the_job_file_says_wins() -> None:
    all_said = _two("{between: [a, b], gbit_per_s: 8, rtt_ms: 1}")
    assert not unknown_links(all_said)
    link = topology(all_said, Probed(ROWS)).link("a", "b")
    assert (link.bytes_per_s, link.latency_s) == (1e9, pytest.approx(0.5e-3))
    half_said = topology(_two("{between: [a, b], gbit_per_s: 8}"), Probed(ROWS)).link("a", "b")
    assert (half_said.bytes_per_s, half_said.latency_s) == (1e9, pytest.approx(1e-3))


def test_the_slower_direction_and_the_faster_round_trip_count() -> None:
    link = topology(_two(), Probed(ROWS)).link("b", "a")
    assert (link.bytes_per_s, link.latency_s) == (2e8, pytest.approx(1e-3))
    assumed = topology(_two()).link("a", "b")
    assert (assumed.bytes_per_s, assumed.latency_s) == (ASSUMED_GBIT_PER_S * 1e9 / 8, ASSUMED_RTT_MS / 2e3)


def test_a_round_trip_that_nobody_saw_is_assumed() -> None:
    link = topology(_two(), Probed([row | {"rtt_s": None} for row in ROWS])).link("a", "b")
    assert (link.bytes_per_s, link.latency_s) == (2e8, ASSUMED_RTT_MS / 2e3)


def test_links_between_emulated_pools_are_never_as_measured() -> None:
    rows = [row | {"source": "nvidia", "target": "ascend"} for row in ROWS]
    assert topology(_job("bridge={}"), Probed(rows)).link("nvidia", "ascend").bytes_per_s == inf


def test_beside_slowed_chips_a_real_link_is_faster() -> None:
    link = topology(_two(), Probed(ROWS, time_scale=10)).link("a", "b")
    assert (link.bytes_per_s, link.latency_s) == (2e9, pytest.approx(1e-4))


@dataclass
class FakeSession:
    """Finds links as ROWS say, and counts how often it is asked."""

    fleet: FleetSpec
    nodes: dict[str, str] = field(default_factory=dict)
    scheme: str = "shm"
    probes: list[Any] = field(default_factory=list)

    def software(self, host: str) -> dict[str, str]:
        return {}

    def node(self, host: str) -> str:
        return self.nodes.get(host, "here")

    def way(self, one: str, other: str) -> dict[str, Any]:
        return {"scheme": self.scheme, "sealed": False, "streams": 1}

    def calibrate(self, spec: Any) -> list[dict[str, Any]]:
        return []

    def probe(self, links: Any) -> list[dict[str, Any]]:
        self.probes.append(list(links))
        return ROWS


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    job = _two()
    return FakeSession(fleet_of(job.pools, fleet_links(job)))


def test_a_link_is_measured_once_for_all_runs(session: FakeSession) -> None:
    first, again = (measure(_two(), session, None).probed for _ in range(2))  # type: ignore[arg-type]
    assert first == again == Probed(ROWS, 1.0)
    assert session.probes == [[("a", "b")]]


@pytest.mark.parametrize("changed", [{"scheme": "zmq"}, {"nodes": {"b@0": "elsewhere"}}])
def test_other_hosts_or_another_way_are_measured_anew(session: FakeSession, changed: dict[str, Any]) -> None:
    measure(_two(), session, None)  # type: ignore[arg-type]
    for name, value in changed.items():
        setattr(session, name, value)
    measure(_two(), session, None)  # type: ignore[arg-type]
    assert len(session.probes) == 2


def test_a_link_that_is_described_is_not_measured(session: FakeSession) -> None:
    job = _two("{between: [a, b], gbit_per_s: 8, rtt_ms: 1}")
    assert not measure(job, session, None).probed.rows  # type: ignore[arg-type]
    assert not session.probes


def test_for_a_plan_by_hand_links_alone_are_measured(session: FakeSession) -> None:
    measured = measure(_two(), session, plan_job(_two()).plan)  # type: ignore[arg-type]
    assert (measured.times, measured.rows, measured.probed) == (None, (), Probed(ROWS))


@pytest.mark.parametrize(
    ("said", "streams"),
    [
        ("{between: [a, b], streams: 2}", 2),
        ("{between: [a, b], gbit_per_s: 10, rtt_ms: 10}", 6),
        ("{between: [a, b], rtt_ms: 10}", 4),
        ("", 4),
    ],
)
def test_streams_are_as_said_else_as_reckoned_else_as_found(said: str, streams: int) -> None:
    (link,) = fleet_links(_two(said), probed=Probed(ROWS))
    assert link.streams == streams


def test_a_plan_says_which_links_it_assumes() -> None:
    (note,) = plan_job(_two("{between: [a, b], rtt_ms: 0.5}")).notes
    assert "between a and b" in note
    assert "10 Gbit/s with a round trip of 0.5 ms" in note
    assert not plan_job(_two(), probed=Probed(ROWS)).notes
    assert not any("Gbit/s" in note for note in plan_job(_job("bridge={}")).notes)


def test_a_slow_link_changes_plan_and_prediction() -> None:
    """Over a link of 1 kB/s no gradient crosses in time: one pool trains alone."""
    slow = Probed([row | {"bytes_per_s": 1e3} for row in ROWS])
    assert set(plan_job(_two()).plan.pools()) == {"a", "b"}
    assert len(plan_job(_two(), probed=slow).plan.pools()) == 1


def test_a_run_is_judged_by_the_links_that_it_was_planned_with() -> None:
    job = _two()
    plan = plan_job(job).plan
    slow = [row | {"bytes_per_s": 1e3} for row in ROWS]
    assumed, probed = (judge(job, plan, MeasuredRun(1.0, {}, probed=rows)).predicted_step_s for rows in ([], slow))
    assert probed > 10 * assumed
