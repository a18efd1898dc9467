"""What our engine costs: against a plain loop, against torch.distributed.pipelining, and what an uneven cut gains.

    python -m benchmarks.overhead [--json] [--only plain pipelining pipelining_small uneven] [--pairs N]

Ours and the peer stand ready side by side and take steps in turn; which of them begins changes from pair to pair. A
step lasts from the first process that began it to the last one that ended it, by the processes' own clocks: how the go
reached them counts for neither. Figures are medians over pairs. `_ideal` is what an engine without any cost would
reach, whose messages take no time: for real chips by the computing times that our ranks measured in the same steps,
for emulated ones by their speed. Our first stage warms up with three forwards, which hides the messages' way behind
compute, since a plan may say so; Schedule1F1B has two. The chips of `uneven` are emulated, the others are real.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from balancer.completion.completion import complete
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from benchmarks.ideal import measured_step_s, modelled_step_s
from benchmarks.peers import SETTINGS, Peer, PlainLoop, Trainer, Turn
from benchmarks.pipelining import Pipelining
from benchmarks.report import print_report
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import prepare
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.job.run.spec import run_spec
from hetero.words.step import HostStep

WARM_UP = 3
SAME_LOSS, SAME_STEPS = 5e-6, 8
"""Both train the same model on the same text: losses differ by rounding alone, before training makes that grow."""
BIG = {"layers": 8, "hidden": 256, "heads": 8, "kv_heads": 4, "ffn": 688, "vocab": 257}
SMALL = {"layers": 4, "hidden": 128, "heads": 8, "kv_heads": 4, "ffn": 344, "vocab": 257}
CPU = {"cpu": {"family": "cpu", "chip": "cpu", "count": 2}}
UNEQUAL = {
    "fast": {"family": "cpu", "chip": "cpu", "count": 1, "emulate": {"speed": 1.0}},
    "slow": {"family": "cpu", "chip": "cpu", "count": 1, "emulate": {"speed": 0.5}},
}


@dataclass(frozen=True)
class Comparison:
    """Two plans for one job: ours and the peer's."""

    name: str
    peer: type[Trainer]
    job: Job
    our_plan: Plan
    peer_plan: Plan
    pairs: int
    time_scale: float = 1.0


@dataclass(frozen=True)
class Pair:
    """A step of ours, the peer's step beside it, and our host reports."""

    ours: Turn
    peer: Turn
    reports: Sequence[HostStep]

    @property
    def ratio(self) -> float:
        """Our tokens/s over the peer's."""
        return self.peer.seconds / self.ours.seconds


def comparisons() -> list[Comparison]:
    big, small, unequal = _job(BIG, 256, CPU), _job(SMALL, 128, CPU), _job(SMALL | {"layers": 8}, 128, UNEQUAL)
    one = _plan(big, ("cpu", 0, 18))
    two, two_small = _plan(big, ("cpu", 0, 9), ("cpu", 9, 18)), _plan(small, ("cpu", 0, 5), ("cpu", 5, 10))
    even = _plan(unequal, ("fast", 0, 9), ("slow", 9, 18))
    cuts = [_plan(unequal, ("fast", 0, cut), ("slow", cut, 18)) for cut in range(1, 18)]
    uneven = min(cuts, key=lambda plan: modelled_step_s(unequal, plan, 1.0))
    return [
        Comparison("plain", PlainLoop, big, one, one, 16),
        Comparison("pipelining", Pipelining, big, two, two, 32),
        Comparison("pipelining_small", Pipelining, small, two_small, two_small, 120),
        Comparison("uneven", Pipelining, unequal, uneven, even, 10, time_scale=6.0),
    ]


def measure(comparison: Comparison, pairs: int) -> tuple[dict[str, float], list[str]]:
    """The figures of one comparison, and what makes them void."""
    job, fleet = comparison.job, fleet_of(comparison.job.pools)
    with tempfile.TemporaryDirectory() as folder:
        text = prepare(job.data, Path(folder))
        ours, theirs = (
            run_spec(job, fleet, plan, text, comparison.time_scale)
            for plan in (comparison.our_plan, comparison.peer_plan)
        )
        with Session.start(fleet, LocalAgents()) as session, Peer(comparison.peer, theirs) as peer:
            session.configure(ours)
            turns = [_pair(session, peer, step) for step in range(WARM_UP + pairs)]
    return _figures(comparison, turns[WARM_UP:]), _void(comparison.name, turns)


def _pair(session: Session, peer: Peer, step: int) -> Pair:
    """One step of each; ours begins in even pairs."""
    theirs = peer.step(step) if step % 2 else None
    reports: list[HostStep] = []
    session.run(step + 1, lambda _, hosts: reports.extend(hosts))
    loss = next(report.totals.loss for report in reports if report.totals)
    start, end = min(report.start for report in reports), max(report.end for report in reports)
    ours = Turn(start, end, loss, any(report.overrun for report in reports))
    return Pair(ours, theirs or peer.step(step), reports)


def _figures(comparison: Comparison, pairs: Sequence[Pair]) -> dict[str, float]:
    name, job = comparison.name, comparison.job
    key = "uneven_gain" if job.emulated else f"{name}_ratio"
    tokens = job.train.global_batch * job.data.seq_len
    ours, theirs = (
        median(turn.seconds for turn in turns) for turns in zip(*((p.ours, p.peer) for p in pairs), strict=True)
    )
    ideal = 1.0
    if job.emulated:
        scale = comparison.time_scale
        ideal = modelled_step_s(job, comparison.peer_plan, scale) / modelled_step_s(job, comparison.our_plan, scale)
    elif len(comparison.our_plan.pipelines[0].stages) > 1:
        ideal = theirs / measured_step_s(job, comparison.our_plan, [pair.reports for pair in pairs])
    return {
        key: median(pair.ratio for pair in pairs),
        f"{key}_ideal": ideal,
        f"{name}_tokens_per_s": tokens / ours,
        f"{name}_peer_tokens_per_s": tokens / theirs,
        f"{name}_pairs": len(pairs),
    }


def _void(name: str, pairs: Sequence[Pair]) -> list[str]:
    reasons = []
    apart = max(abs(pair.ours.loss / pair.peer.loss - 1) for pair in pairs[:SAME_STEPS])
    if apart > SAME_LOSS:
        reasons.append(f"{name}: the losses of ours and the peer's differ by {apart:.1e}")
    overruns = sum(turn.overrun for pair in pairs[WARM_UP:] for turn in (pair.ours, pair.peer))
    if overruns:
        reasons.append(f"{name}: {overruns} steps overran their modelled time")
    return reasons


def _job(dimensions: Mapping[str, int], seq_len: int, pools: Mapping[str, Any]) -> Job:
    return Job.model_validate(
        {
            "model": {"dimensions": {"family": "llama", **dimensions}},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": seq_len},
            "train": {"steps": 10_000, "global_batch": 8, "micro_batch": 1},
            "pools": pools,
        }
    )


def _plan(job: Job, *stages: tuple[str, int, int]) -> Plan:
    """One pipeline; each stage is (pool, first unit, unit after the last). A plan may say how many forwards a stage
    warms up with: one more than need be at each boundary, so that messages travel while both their ends compute."""
    last = len(stages) - 1
    parts = [
        StagePlan(pool=pool, units=((first, end),), warmup=1 + 2 * (last - number))
        for number, (pool, first, end) in enumerate(stages)
    ]
    pipeline = PipelinePlan(share=job.train.global_batch, stages=tuple(parts))
    return complete(Plan(pipelines=(pipeline,)), Problem(topology(job), workload(job)))


def main() -> None:
    every = comparisons()
    names = [comparison.name for comparison in every]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="leave the others out")
    parser.add_argument("--pairs", type=int, help="pairs of steps of each comparison")
    options = parser.parse_args()
    chosen = [comparison for comparison in every if comparison.name in options.only]
    figures: dict[str, float] = {}
    void: list[str] = []
    for comparison in chosen:
        found, reasons = measure(comparison, options.pairs or comparison.pairs)
        figures |= found
        void += reasons
    if not options.json:
        print(SETTINGS)
    emulated = any(comparison.job.emulated for comparison in chosen)
    print_report("overhead", figures, emulated=emulated, void="; ".join(void) or None, quiet=options.json)


if __name__ == "__main__":
    main()
