"""However a run ends, it says why, and leaves nothing on the machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from hetero.checkpoint.store import CheckpointStore
from tests.e2e.command import Command, Run, short_folder
from tests.e2e.footprint import SHARED_MEMORY, Footprint
from tests.patience import RUN_S

Kill = Callable[[int, int], None]
Moment = Callable[[Command, Run], bool]

STEPS_BEFORE_THE_END = 8

JOB = {
    "model": {"dimensions": {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}},
    "train": {"steps": 100_000, "global_batch": 3},
    "pools": {
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 2, "tp": 2, "emulate": {}},
        "ascend": {"family": "ascend", "chip": "Ascend-910B2", "count": 1, "tp": 1, "emulate": {}},
    },
    "bridge": {"links": [{"between": ["nvidia", "ascend"], "transport": "grpc", "gbit_per_s": 400, "rtt_ms": 0.01}]},
    "balance": {
        "mode": "manual",
        "pipelines": [
            {
                "share": 3,
                "stages": [
                    {"pool": "nvidia", "tp": 2, "units": [0, 2]},
                    {"pool": "ascend", "tp": 1, "units": [2, 4]},
                ],
            }
        ],
    },
    "checkpoint": {"every": 5},
    "time_scale": 1.0,
}
HOSTS = ("nvidia@0", "ascend@0")
ANOTHER = pytest.mark.exhaustive
"""Another signal, process or moment by the same way; each takes a run of its own."""


class UnderWay:
    """A run that has trained for some steps, and soon meets its end."""

    def __init__(self, job: Path, run: Run, command: Command) -> None:
        self.job, self.run, self.command = job, run, command
        self.run.wait_for_steps(STEPS_BEFORE_THE_END, self.command, RUN_S)
        self.command.footprint.look(self.command.process.pid)
        self.pids = self.run.pids()
        self.agents = {host: psutil.Process(self.pids[f"{host} endpoint"]).ppid() for host in HOSTS}
        self._check_footprint()

    def end(self, how: Callable[[], None]) -> str:
        """Brings the end about, proves that nothing is left, and returns what is on the screen."""
        began = time.monotonic()
        how()
        self.command.wait(RUN_S)
        assert self.command.footprint.left_after(began + RUN_S - time.monotonic()) == []
        return self.command.output

    def _check_footprint(self) -> None:
        """There is something that could be left behind, and it is seen."""
        seen = self.command.footprint
        assert {process.pid for process in seen.processes} >= {*self.pids.values(), *self.agents.values()}
        assert len(seen.ports) >= len(HOSTS)
        left = seen.left()
        for kind in ("process", "port", "file"):
            assert any(line.startswith(kind) for line in left), left


def _job_file(place: Path) -> Path:
    text, path = place / "text.txt", place / "job.yaml"
    text.write_bytes(bytes(range(256)) * 40)
    path.write_text(yaml.safe_dump(JOB | {"data": {"source": str(text), "seq_len": 16}}))
    return path


@pytest.fixture
def under_way() -> Iterator[UnderWay]:
    with short_folder() as place:
        job, run = _job_file(place), Run(place / "run")
        with Command(place, "train", job, "--run-dir", run.folder) as command:
            yield UnderWay(job, run, command)


def test_a_forgotten_segment_would_be_seen(tmp_path: Path) -> None:
    footprint = Footprint("nobody", [tmp_path])
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as held:
        assert footprint.left() == [], "somebody's, as long as it is open"
        forgotten = Path(held.name + "-forgotten")
        forgotten.write_bytes(b"x")
        try:
            assert footprint.left() == [f"shared memory {forgotten.name}"]
        finally:
            forgotten.unlink()


@pytest.mark.parametrize(
    ("who", "said"),
    [
        pytest.param("ascend:0", "rank ascend:0 was killed by SIGKILL", id="rank", marks=ANOTHER),
        pytest.param("nvidia@0 endpoint", "endpoint was killed by SIGKILL", id="endpoint", marks=ANOTHER),
        pytest.param("ascend@0 agent", "agent died", id="agent"),
    ],
)
def test_a_death_ends_the_run_and_is_named(who: str, said: str, under_way: UnderWay) -> None:
    pool = re.split("[@:]", who)[0]
    pid = under_way.pids.get(who) or under_way.agents[f"{pool}@0"]
    screen = under_way.end(lambda: os.kill(pid, signal.SIGKILL))
    assert under_way.command.process.returncode == 1, screen
    for part in (f"pools.{pool}", f"host {pool}@0 on ", ", step ", said):
        assert part in screen, screen
    assert "Traceback" not in screen, screen
    last = under_way.run.events[-1]
    assert (last["kind"], last["pool"], last["rank"]) == ("failed", pool, who if ":" in who else None)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        pytest.param("gcs_server", "Ray's control store", id="store"),
        pytest.param("raylet", "Ray's raylet", id="raylet", marks=ANOTHER),
    ],
)
def test_a_run_whose_ray_is_gone_says_so(program: str, named: str, under_way: UnderWay) -> None:
    (vital,) = [one for one in under_way.command.footprint.processes if Path(one.cmdline()[0]).name == program]
    screen = under_way.end(vital.kill)
    assert under_way.command.process.returncode == 1, screen
    assert f"{named} was killed by SIGKILL" in screen, screen
    assert "Traceback" not in screen, screen
    last = under_way.run.events[-1]
    assert (last["kind"], last["pool"], last["data"]["process"]) == ("failed", None, named)


@ANOTHER  # Ctrl-C meets the run that goes on from one whose driver was killed, below
@pytest.mark.parametrize(
    ("kill", "number"),
    [
        pytest.param(os.killpg, signal.SIGHUP, id="terminal closed"),
        pytest.param(os.kill, signal.SIGTERM, id="terminated"),
    ],
)
def test_an_interrupted_run_says_so(kill: Kill, number: signal.Signals, under_way: UnderWay) -> None:
    _is_interrupted(under_way, kill, number)


def _is_interrupted(under_way: UnderWay, kill: Kill, number: signal.Signals) -> None:
    screen = under_way.end(lambda: kill(under_way.command.process.pid, number))
    assert under_way.command.process.returncode == 1, screen
    assert screen.endswith(f"interrupted; recorded in {under_way.run.folder}\n"), screen
    assert "Traceback" not in screen, screen
    assert "SIGTERM" not in screen, screen  # Ray's failure handler, which gives a process three seconds, had no part
    assert under_way.run.events[-1]["kind"] == "interrupted"


def _agents_start(command: Command, _: Run) -> bool:
    return any("HostActor" in " ".join(process.cmdline()) for process in _alive(command))


def _alive(command: Command) -> Iterator[psutil.Process]:
    for process in psutil.Process(command.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline():
                yield process


def _told(kind: str) -> Moment:
    return lambda _, run: any(event["kind"] == kind for event in run.events)


@pytest.mark.parametrize(
    ("moment", "kill", "number"),
    [
        pytest.param(_told("started"), os.killpg, signal.SIGINT, id="ray starts", marks=ANOTHER),
        pytest.param(_told("started"), os.killpg, signal.SIGTERM, id="ray starts, terminated", marks=ANOTHER),
        pytest.param(_agents_start, os.killpg, signal.SIGHUP, id="agents start", marks=ANOTHER),
        pytest.param(_told("measuring"), os.killpg, signal.SIGTERM, id="measuring", marks=ANOTHER),
        pytest.param(_told("saved"), os.killpg, signal.SIGINT, id="saving", marks=ANOTHER),
    ],
)
def test_so_does_one_that_is_interrupted_at_another_moment(moment: Moment, kill: Kill, number: signal.Signals) -> None:
    """And the signal comes again and again while it ends."""
    with short_folder() as place:
        run = Run(place / "run")
        with Command(
            place, "train", _job_file(place), "--run-dir", run.folder, "--set", "checkpoint.every=1"
        ) as command:
            until = time.monotonic() + RUN_S
            while not moment(command, run):
                assert command.process.poll() is None, command.output
                assert time.monotonic() < until, command.output
                time.sleep(0.05)
            command.footprint.look(command.process.pid)
            until = time.monotonic() + RUN_S
            while command.process.poll() is None and time.monotonic() < until:
                kill(command.process.pid, number)
                command.footprint.look(command.process.pid)
                time.sleep(0.3)
            assert command.wait(0) == 1, command.output
            assert command.footprint.left_after(RUN_S) == []
            assert command.output.endswith(f"interrupted; recorded in {run.folder}\n"), command.output
            assert "Traceback" not in command.output
        assert [event["kind"] for event in run.events].count("interrupted") == 1
        assert run.events[-1]["kind"] == "interrupted"


def test_a_run_whose_driver_was_killed_leaves_nothing_and_goes_on_until_ctrl_c(under_way: UnderWay) -> None:
    under_way.end(under_way.command.process.kill)
    first, job = under_way.run, under_way.job
    saved = CheckpointStore(first.folder / "checkpoints").steps()[0]
    second = Run(first.folder.with_name("resumed"))
    more = ("--run-dir", second.folder, "--resume", f"{first.folder}@{saved}")
    with Command(job.parent, "train", job, *more) as command:
        _is_interrupted(UnderWay(job, second, command), os.killpg, signal.SIGINT)
    steps = {line["step"]: line for line in second.metrics}
    assert list(steps) == list(range(saved, saved + len(steps)))
    assert steps[saved]["consumed_tokens"] == (saved + 1) * 3 * 16
    repeated = [line for line in first.metrics if line["step"] in steps]
    assert repeated
    for line in repeated:
        assert steps[line["step"]]["loss"] == pytest.approx(line["loss"], rel=5e-6)
