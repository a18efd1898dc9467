"""What strangers cost a mixed run: the quickstart's steps beside 2,000 of a kind, over undisturbed ones.

    python -m benchmarks.strangers [--json] [--job configs/runs/quickstart.yaml] [--count 2000] [--steps 3]

Standing ranks train the same steps again and again, undisturbed and beside strangers in turn, each time from the same
start. The strangers (tests/contract/strangers.py) come to one port of a running endpoint, and whoever is hung up on
comes again a second later. They compute too, which on real hosts they would do elsewhere: so the run has one core, with
or without them, and they have another. Loopback delivers what they send on theirs.

`steps_SCHEME_KIND` is steps per second beside them over those of the undisturbed blocks before and after; `grown_mb` is
what the endpoint that they were at has grown by, at most; `losses_equal` is 1 if no loss differed in any block.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.report import print_report
from benchmarks.usage import other_work
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import prepare
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.plan_job import plan_job
from hetero.job.run.spec import fleet_links, run_spec
from hetero.words.step import HostStep
from tests.contract import strangers

ROOT = Path(__file__).parents[1]
TIME_SCALE = 20_000
"""One core has to compute what eight chips are asked to."""
WARM_UP = 1
RUN_CORE, OTHER_CORE = sorted(os.sched_getaffinity(0))[:2]
KINDS = [(scheme, kind) for scheme, kinds in strangers.BY_SCHEME.items() for kind in kinds]


@dataclass(frozen=True)
class Block:
    """Some steps in succession."""

    step_s: float
    losses: tuple[float, ...]
    overruns: int


class Bench:
    """Ranks that stand ready for one block after another."""

    def __init__(self, job: Job, session: Session, folder: Path, steps: int) -> None:
        self._job, self._session, self._steps, self._epoch = job, session, steps, 0
        self._plan, self._text = plan_job(job).plan, prepare(job.data, folder)
        session.relink(fleet_links(job, TIME_SCALE))

    def block(self) -> Block:
        plan = self._plan.model_copy(update={"epoch": self._epoch})
        spec = run_spec(self._job, self._session.fleet, plan, self._text, TIME_SCALE)
        self._session.configure(spec)
        self._epoch += 1
        self._session.run(WARM_UP, lambda step, hosts: None)
        reports: list[HostStep] = []
        self._session.run(WARM_UP + self._steps, lambda step, hosts: reports.extend(hosts))
        seconds = max(report.end for report in reports) - min(report.start for report in reports)
        losses = [report.totals.loss for report in reports if report.totals]
        overruns = len({report.step for report in reports if report.overrun})
        return Block(seconds / self._steps, tuple(losses), overruns)

    def endpoints(self) -> dict[str, tuple[psutil.Process, str]]:
        """By scheme, one that listens, and the URI."""
        found = {}
        for host in self._session.fleet.hosts:
            endpoint = psutil.Process(self._session.pids(host.id)["endpoint"])
            for one in endpoint.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    address = one.laddr.ip.removeprefix("::ffff:"), one.laddr.port
                    scheme = _scheme_at(address)
                    found[scheme] = endpoint, f"{scheme}://{address[0]}:{address[1]}"
        return found


def _scheme_at(address: tuple[str, int]) -> str:
    """libzmq greets whoever comes, gRPC waits."""
    with socket.create_connection(address) as end:
        end.settimeout(1.0)
        try:
            end.recv(1)
        except TimeoutError:
            return "grpc"
        return "zmq"


class Growth:
    """What a process grows by at most, while it is looked at by another thread."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, threading.Event()
        self._before = self._most = process.memory_info().rss
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Growth:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def mb(self) -> float:
        return (self._most - self._before) / 1e6

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._most = max(self._most, self._process.memory_info().rss)


@contextlib.contextmanager
def crowd(kind: str, uri: str, count: int) -> Iterator[None]:
    """Strangers on another core than ours, and in a group of processes of their own."""
    command = [sys.executable, "-m", "tests.contract.strangers", kind, uri, str(count)]
    cores = {OTHER_CORE}
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the strangers went: exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()


def compare(bench: Bench, count: int) -> tuple[dict[str, float], list[str]]:
    """The figures, and why they are void if they are."""
    figures: dict[str, float] = {}
    before = bench.block()
    blocks, endpoints = [before], bench.endpoints()
    for scheme, kind in KINDS:
        endpoint, uri = endpoints[scheme]
        with Growth(endpoint) as growth, crowd(kind, uri, count):
            beside = bench.block()
        after = bench.block()
        figures[f"steps_{scheme}_{kind}"] = (before.step_s + after.step_s) / 2 / beside.step_s
        figures[f"grown_mb_{scheme}_{kind}"] = growth.mb
        blocks += [beside, after]
        before = after
    ratios = [figure for key, figure in figures.items() if key.startswith("steps_")]
    grown = [figure for key, figure in figures.items() if key.startswith("grown_")]
    figures |= {
        "worst_steps": min(ratios),
        "most_grown_mb": max(grown),
        "losses_equal": float(len({block.losses for block in blocks}) == 1),
        "step_s": median(block.step_s for block in blocks[::2]),
    }
    overruns = sum(block.overruns for block in blocks[::2])
    return figures, [f"{overruns} undisturbed steps overran their modelled time"] if overruns else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--job", type=Path, default=ROOT / "configs/runs/quickstart.yaml")
    parser.add_argument("--count", type=int, default=2000, help="strangers of each kind")
    parser.add_argument("--steps", type=int, default=3, help="of one block")
    options = parser.parse_args()
    job = load_job(options.job, (f"time_scale={TIME_SCALE}",))
    reasons = [] if (busy := other_work()) is None else [busy]
    os.sched_setaffinity(0, {RUN_CORE})
    with (
        tempfile.TemporaryDirectory() as folder,
        Session.start(fleet_of(job.pools, fleet_links(job)), LocalAgents()) as session,
    ):
        figures, void = compare(Bench(job, session, Path(folder), options.steps), options.count)
    void_reason = "; ".join(reasons + void) or None
    print_report("strangers", figures, emulated=job.emulated, void=void_reason, quiet=options.json)


if __name__ == "__main__":
    main()
