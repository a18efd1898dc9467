"""What being watched costs a run: the quickstart with everything on, against the same ranks unwatched.

    python -m benchmarks.monitoring [--json] [--job configs/runs/quickstart.yaml] [--pairs 5] [--steps 5]

Standing ranks train the same steps again and again, watched and unwatched in turn, each time from the same start;
which comes first changes from pair to pair. Watched means all at once: journals, alerts, the live screen, a trace of
every fifth step, a dashboard with its page open, an endpoint that is scraped every 5 s, TensorBoard, W&B (offline) and
MLflow. They start before the clock does. A block's time runs from its first step's begin to its last one's end by the
ranks' own clocks, so whatever comes now and then counts, and so do the gaps between steps; figures are medians over
pairs, `_error` is what they are uncertain by.

Emulated chips sleep off what they are faster than modelled, which hides what others take of the processor. Therefore
`unpaced_*` is the same with ranks that never sleep: same model, plan and links on family `cpu`, eight ranks on however
few cores there are, so they lack whatever is taken. `cpu_s_per_step` is the processor time of the driver and of all
processes and threads that watch, those who look on included, beyond what the driver takes unwatched.

`dashboard_open_100k_s`: from asking for the page of a run of 100,000 steps, on a server that has only just been
started, until Chromium has drawn its curves.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev

from benchmarks.dashboard import opening_s
from benchmarks.report import print_report
from benchmarks.usage import Usage
from benchmarks.watchers import HostReports, Watchers
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.measuring import measure
from hetero.job.planning.plan_job import plan_job
from hetero.job.run.spec import fleet_links, run_spec
from hetero.words.step import HostStep

WARM_UP = 1
TIME_SCALE = 8500
"""That two cores keep up with, also while they watch; what `auto` measures leaves less room."""
MOST_ERROR = 0.005
"""Half of what watching may cost: if the cost is not known to within that, it is void."""
MOST_OTHERS = 0.05
"""Part of the processor that strangers may take before figures are void."""


@dataclass(frozen=True)
class Block:
    """Some steps in succession."""

    step_s: float
    cpu_s: float
    others: float
    overruns: int


@dataclass(frozen=True)
class Pair:
    watched: Block
    alone: Block

    @property
    def cost(self) -> float:
        """The part of the tokens per second that is lost."""
        return 1 - self.alone.step_s / self.watched.step_s

    @property
    def cpu_s(self) -> float:
        return self.watched.cpu_s - self.alone.cpu_s


class Bench:
    """Ranks that stand ready for one block after another."""

    def __init__(self, job: Job, session: Session, text: Prepared, folder: Path) -> None:
        self._job, self._session, self._text, self._folder = job, session, text, folder
        self._planned = plan_job(job)
        self._scale = measure(job, session, self._planned.plan).time_scale
        session.relink(fleet_links(job, self._scale))
        self._epoch = 0

    def pair(self, number: int, steps: int) -> Pair:
        first, second = (self._watched, self._alone) if number % 2 else (self._alone, self._watched)
        blocks = {run: run(steps) for run in (first, second)}
        return Pair(blocks[self._watched], blocks[self._alone])

    def _watched(self, steps: int) -> Block:
        self._configure(trace_every=steps)
        with Watchers(self._job, self._planned, self._scale, self._folder / f"run{self._epoch}") as watchers:
            return self._run(steps, watchers.report)

    def _alone(self, steps: int) -> Block:
        self._configure(trace_every=0)
        return self._run(steps, lambda hosts: None)

    def _configure(self, trace_every: int) -> None:
        plan = self._planned.plan.model_copy(update={"epoch": self._epoch})
        spec = run_spec(self._job, self._session.fleet, plan, self._text, self._scale)
        self._session.configure(spec.model_copy(update={"trace_every": trace_every}))
        self._epoch += 1

    def _run(self, steps: int, report: Callable[[HostReports], None]) -> Block:
        self._session.run(WARM_UP, lambda _, hosts: report(hosts))
        reports: list[HostStep] = []

        def record(_: int, hosts: HostReports) -> None:
            reports.extend(hosts)
            report(hosts)

        hosts = self._session.fleet.hosts
        usage = Usage(frozenset(pid for host in hosts for pid in self._session.pids(host.id).values()))
        self._session.run(WARM_UP + steps, record)
        cpu_s, others = usage.since()
        seconds = max(report.end for report in reports) - min(report.start for report in reports)
        overruns = len({report.step for report in reports if report.overrun})
        return Block(seconds / steps, cpu_s / steps, others, overruns)


def unpaced(job: Job) -> Job:
    """The same job on this machine's processor as it is: nobody sleeps."""
    pools = {
        name: pool.model_copy(update={"family": "cpu", "chip": "cpu", "emulate": None})
        for name, pool in job.pools.items()
    }
    return job.model_copy(update={"pools": pools, "time_scale": "auto"})


def measured(job: Job, pairs: int, steps: int) -> list[Pair]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Session.start(fleet_of(job.pools, fleet_links(job)), LocalAgents()) as session,
    ):
        bench = Bench(job, session, prepare(job.data, Path(folder)), Path(folder))
        return [bench.pair(number, steps) for number in range(pairs)]


def figures(job: Job, pairs: Sequence[Pair], prefix: str) -> dict[str, float]:
    step_s = median(pair.alone.step_s for pair in pairs)
    return {
        f"{prefix}monitoring_cost": median(pair.cost for pair in pairs),
        f"{prefix}monitoring_cost_error": _error(pairs),
        f"{prefix}cpu_s_per_step": median(pair.cpu_s for pair in pairs),
        f"{prefix}step_s": step_s,
        f"{prefix}tokens_per_s": job.train.global_batch * job.data.seq_len / step_s,
    }


def void(paced: Sequence[Pair], bare: Sequence[Pair]) -> list[str]:
    reasons = []
    if overruns := sum(block.overruns for pair in paced for block in (pair.watched, pair.alone)):
        reasons.append(f"{overruns} steps overran their modelled time")
    others = median(block.others for pair in (*paced, *bare) for block in (pair.watched, pair.alone))
    if others > MOST_OTHERS:
        reasons.append(f"other processes took {others:.0%} of the processor")
    if _error(paced) > MOST_ERROR:
        reasons.append(f"pairs differ too much: the cost is known to within {_error(paced):.1%} alone")
    return reasons


def _error(pairs: Sequence[Pair]) -> float:
    """Standard error of the median, were the pairs drawn from a normal distribution."""
    return math.sqrt(math.pi / 2 / len(pairs)) * stdev(pair.cost for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--job", type=Path, default=Path("configs/runs/quickstart.yaml"))
    parser.add_argument("--pairs", type=int, choices=range(2, 100), metavar="N", default=5, help="how often to compare")
    parser.add_argument("--steps", type=int, default=5, help="of one block, one of them traced")
    options = parser.parse_args()
    job = load_job(options.job, (f"time_scale={TIME_SCALE}",))
    bare_job = unpaced(job)
    paced, bare = (measured(one, options.pairs, options.steps) for one in (job, bare_job))
    found = figures(job, paced, "") | figures(bare_job, bare, "unpaced_") | opening_s()
    reasons = "; ".join(void(paced, bare)) or None
    print_report("monitoring", found, emulated=job.emulated, void=reasons, quiet=options.json)


if __name__ == "__main__":
    main()
