"""A session over real processes (fake ranks, fake endpoints): its life, and how each kind of death ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.registry import FAMILIES
from bridge.words.release import RELEASE
from hetero.cluster.control.controller import ControlOptions
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.cluster.errors import ClusterError, FingerprintMismatch, HostFailure, RankFailure
from hetero.cluster.fleet import FleetLink, FleetSpec, Hosting, HostSpec
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.host.processes import environment
from hetero.cluster.onray.reaper import MARK, marked
from hetero.cluster.session import PROBE_S, Session
from hetero.errors import exit_code
from hetero.monitoring.notice import Notice
from hetero.words.spec import RunSpec
from tests.patience import WAIT_S
from tests.unit.hetero.cluster.fake_endpoint import BYTES_PER_S, MOST_STREAMS
from tests.unit.hetero.cluster.fleets import FAKES, ROOT, fleet, pool, three_families, two_hosts
from tests.unit.hetero.cluster.specs import CALIBRATION, epoch_spec

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mark = f"session-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(MARK, mark)
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert not marked(mark)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


Fleet = Callable[..., FleetSpec]


@pytest.fixture(scope="module")
def standing() -> Iterator[Session]:
    """For those who end nothing."""
    with started() as session:
        yield session


def started(of: Fleet = three_families, grace_s: float = 0.2, **patience: float) -> Session:
    return Session.start(of(**patience), LocalAgents(), options=ControlOptions(grace_s=grace_s))


def run_to_the_end(
    spec: RunSpec, kill: tuple[str, str] | None = None, of: Fleet = two_hosts, **started_with: float
) -> None:
    """A session that a fault of `spec` ends, or the death of the process `kill` (host and name) at step 3."""
    with started(of, **started_with) as session:

        def on_report(step: int, _: object) -> None:
            if kill is not None and step == 3:
                host, process = kill
                os.kill(session.pids(host)[process], signal.SIGKILL)

        session.configure(spec)
        session.run(1000, on_report)


def faulty(rank: str, step: int, fault: str) -> RunSpec:
    return epoch_spec(step_s=0.01, faults={rank: [step, fault]})


def test_one_epoch_after_another_on_standing_ranks() -> None:
    notice: list[Notice] = []
    with Session.start(three_families(), LocalAgents(), on_event=notice.append) as session:
        assert [one["pool"] for one in session.calibrate(CALIBRATION)] == [
            "nvidia:0", "nvidia:1", "ascend:0", "ascend:1", "ascend:2", "ascend:3", "kunlun:0",
        ]  # fmt: skip
        for epoch, (start, until) in enumerate([(0, 40), (40, 50)]):
            idle = ["kunlun:0"] if epoch else []
            answers = session.configure(epoch_spec(epoch, start, save_every=20, idle=idle))
            assert len(answers) == 7
            steps: list[tuple[int, int]] = []
            done = session.run(until, lambda step, reports, steps=steps: steps.append((step, len(reports))))
            assert done == until
            assert steps == [(step, 3 if epoch else 4) for step in range(start, until)]
    assert [(one.step, len(one.pieces)) for one in notice if isinstance(one, CheckpointWritten)] == [(20, 3), (40, 3)]


def test_links_are_probed_both_ways_for_a_second_each(standing: Session) -> None:
    rows = standing.probe([("ascend", "nvidia")])
    assert [(row["source"], row["target"]) for row in rows] == [("ascend", "nvidia"), ("nvidia", "ascend")]
    assert {(row["cpu_s_per_gb"], row["streams"]) for row in rows} == {(BYTES_PER_S * PROBE_S, 1)}
    assert len(standing.probe()) == 6
    assert standing.way("ascend", "nvidia") == {"scheme": "grpc", "sealed": False, "streams": 1}


def test_where_nobody_has_said_how_many_streams_fill_a_link_it_is_tried() -> None:
    notice: list[Notice] = []
    fleet = replace(three_families(), links=(FleetLink(("nvidia", "ascend"), "grpc"),))
    with Session.start(fleet, LocalAgents(), notice.append) as session:
        rows = session.probe([("ascend", "nvidia")])
        assert {(row["bytes_per_s"], row["streams"]) for row in rows} == {(BYTES_PER_S * MOST_STREAMS, 4)}
        assert session.way("ascend", "nvidia") == {"scheme": "grpc", "sealed": False, "streams": 4}
        assert session.probe([("ascend", "nvidia")]) == rows
    links = [one.data for one in notice if one.kind == "link"]
    assert [link["streams"] for link in links if "kunlun" not in link["between"]] == [1, 2, 4, 8, 4] * 2


def test_every_process_is_known_by_its_pid(standing: Session) -> None:
    for host in standing.fleet.hosts:
        pids = standing.pids(host.id)
        assert set(pids) == {"endpoint", "fork server", *map(str, host.ranks)}
        assert all(pid > 1 and runs(pid) for pid in pids.values())


def test_ranks_of_a_family_that_no_fork_survives_are_programs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "cpu", replace(FAMILIES["cpu"], forks=False))
    with Session.start(fleet(replace(pool("local", "cpu", 2), emulate=None)), LocalAgents()) as session:
        pids = session.pids("local@0")
        for rank in ("local:0", "local:1"):
            command = Path(f"/proc/{pids[rank]}/cmdline").read_text()
            assert "hetero.engine.fork_server" in command
            assert f"--rank={rank}" in command
        session.configure(epoch_spec())
        assert session.run(3) == 3


def test_endpoints_alone_copy_past_the_caches(standing: Session) -> None:
    found = {
        process: b"non_temporal" in Path(f"/proc/{pid}/environ").read_bytes()
        for process, pid in standing.pids("nvidia@0").items()
    }
    assert [process for process, copies in found.items() if copies] == ["endpoint"]


def test_reports_of_a_host_s_ranks_are_merged(standing: Session) -> None:
    reports: list = []
    standing.configure(epoch_spec())
    standing.run(1, lambda step, hosts: reports.extend(hosts))
    assert {report.host: report.ranks for report in reports} == {
        "nvidia@0": 2, "ascend@0": 2, "ascend@1": 2, "kunlun@0": 1,
    }  # fmt: skip


def test_other_text_is_refused_and_the_session_goes_on(standing: Session) -> None:
    with pytest.raises(FingerprintMismatch, match="ascend@1"):
        standing.configure(epoch_spec(1, fingerprints={"nvidia:0": "a", "ascend:3": "b"}))
    standing.configure(epoch_spec(2))
    assert standing.run(3) == 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill", "was killed by SIGKILL"),
        pytest.param("abort", "was killed by SIGABRT", marks=pytest.mark.exhaustive),
        ("exit", "ended with exit status 3"),
        ("fail", "ValueError: a mistake of its own"),
        ("babble", "WordError: word = Babble; it is not known here"),
        pytest.param("command", "WordError: word = Stop; nobody says that here", marks=pytest.mark.exhaustive),
        ("peer lost", "PeerLost"),
    ],
)
def test_a_rank_s_end_is_named(fault: str, cause: str) -> None:
    check_end(3, fault, cause)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        pytest.param("kill", "was killed by SIGKILL", marks=pytest.mark.exhaustive),
        ("fail", "ValueError: a mistake of its own"),
    ],
)
def test_so_is_its_end_before_the_first_step(fault: str, cause: str) -> None:
    check_end(-1, fault, cause)


def check_end(step: int, fault: str, cause: str) -> None:
    with pytest.raises(RankFailure) as caught:
        run_to_the_end(faulty("ascend:2", step, fault))
    assert (caught.value.pool, caught.value.host, str(caught.value.rank)) == ("ascend", "ascend@1", "ascend:2")
    assert cause in caught.value.cause


def test_the_root_cause_wins_over_what_it_leads_to() -> None:
    faults = {"nvidia:0": [3, "peer lost"], "nvidia:1": [3, "closed by peer"], "kunlun:0": [3, "fail"]}
    with pytest.raises(RankFailure) as caught:
        run_to_the_end(epoch_spec(faults=faults), of=three_families, grace_s=2.0)
    assert str(caught.value.rank) == "kunlun:0"
    assert "traceback" in caught.value.error
    told = {line.split()[1] for line in caught.value.also}
    assert told
    assert told <= {"nvidia:0", "nvidia:1"}, "who was heard of within the grace"


@pytest.mark.parametrize("fault", ["hang", "stop"])
def test_a_rank_that_hangs_is_noticed(fault: str) -> None:
    with pytest.raises(RankFailure) as caught:
        run_to_the_end(faulty("ascend:3", 2, fault), rank_s=3.0)
    assert str(caught.value.rank) == "ascend:3"
    assert "has not finished step 2" in caught.value.cause
    assert ("is stopped" in caught.value.cause) == (fault == "stop")


@pytest.mark.parametrize("process", ["endpoint", "fork server"])
def test_a_helper_s_death_is_named(process: str) -> None:
    with pytest.raises(HostFailure) as caught:
        run_to_the_end(epoch_spec(step_s=0.01), kill=("ascend@1", process))
    assert (caught.value.host, caught.value.rank) == ("ascend@1", None)
    assert caught.value.cause == "was killed by SIGKILL"
    assert str(caught.value.value).startswith(process)


def test_a_missing_interpreter_is_named() -> None:
    with pytest.raises(ClusterError) as caught:
        Session.start(fleet(pool("nvidia", "cuda", 1), hosting=Hosting("/nowhere/python")), LocalAgents())
    assert (caught.value.key, caught.value.value) == ("pools.nvidia.env.python", "/nowhere/python")
    assert exit_code(caught.value) == 2


def test_an_interpreter_of_another_release_is_named() -> None:
    programs = replace(FAKES, endpoint="tests.unit.hetero.cluster.older_endpoint")
    with pytest.raises(ClusterError, match=RELEASE) as caught:
        Session.start(fleet(pool("nvidia", "cuda", 1), programs=programs), LocalAgents())
    assert caught.value.key == "pools.nvidia.env.python"
    assert str(caught.value.value).startswith("0.0.9 (endpoint, host nvidia@0")
    assert exit_code(caught.value) == 2


def test_agents_of_another_release_than_the_driver_s_are_named() -> None:
    class Older(LocalAgents):
        def start(self, hosts: tuple[HostSpec, ...]) -> None:
            super().start(tuple(replace(host, release="0.0.9") for host in hosts))

    with pytest.raises(ClusterError, match=RELEASE) as caught:
        Session.start(fleet(pool("nvidia", "cuda", 1)), Older())
    assert (caught.value.key, exit_code(caught.value)) == ("pools.nvidia", 2)


def test_a_pool_s_variables_reach_its_processes() -> None:
    hosting = Hosting(variables={"OMP_NUM_THREADS": "4"})
    variables = environment(fleet(pool("ascend", "ascend", 1), hosting=hosting).hosts[0])
    assert variables["OMP_NUM_THREADS"] == "4"
    assert variables["ASCEND_RT_VISIBLE_DEVICES"] == variables["CUDA_VISIBLE_DEVICES"] == ""
    assert variables["GLOO_SOCKET_IFNAME"] == "lo"


DRIVER = """
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.session import Session
from tests.unit.hetero.cluster.fleets import two_hosts
from tests.unit.hetero.cluster.specs import epoch_spec

with Session.start(two_hosts(), LocalAgents()) as session:
    session.configure(epoch_spec(step_s=0.01, faults={"ascend:3": [2, "hang"]}))
    print(*[pid for host in session.fleet.hosts for pid in session.pids(host.id).values()], flush=True)
    session.run(1000)
"""


@pytest.mark.parametrize(
    "ending",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGINT],
    ids=lambda ending: ending.name,
)
def test_nothing_outlives_the_driver(ending: signal.Signals) -> None:
    """Signals go to the driver's whole group, as a terminal sends its Ctrl-C."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert driver.stdout is not None
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == 4 + 2 * 2
    os.killpg(driver.pid, ending)
    driver.wait(WAIT_S)
    driver.stdout.close()
    assert within(WAIT_S, lambda: not any(runs(pid) for pid in pids))


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def runs(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
