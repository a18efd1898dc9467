"""What a codec costs the training: the quickstart's model over each, from the same start on the same text.

    python -m benchmarks.codecs [--json] [--steps N] [--lr RATE] [--seeds N] [--only bf16 int8 fp8]

One pipeline of two emulated chips of different families, cut in the middle, so that every activation and every gradient
of the boundary crosses in the codec. Chips are not paced: what counts is the loss, of which the mean over the last
steps is compared; the learning rate falls to its tenth by then. `_loss` is by how much it is above the one without a
codec, `_bytes` the bytes that crossed over those of that run, `_fallbacks` how often the gate took a safer codec.

One run more has no codec, and shows what chance makes of a difference that means nothing: `perturbed` begins from
weights that differ by as much as rounding them to bfloat16 would change them (benchmarks/perturbed.py). With several
seeds, each decides initial values and samples of one run of every kind, and is compared with itself alone: `_loss` is
the mean over the seeds, `_loss_error` its standard error, `_loss_spread` the standard deviation from seed to seed. All
are held against the same plain runs, whose own luck is in every mean: a codec costs something where its mean is above
that of `perturbed` by more than twice the errors.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev

from balancer.plan.plan import PipelinePlan, StagePlan
from benchmarks.report import print_report
from bridge.codec import CODECS, NONE
from bridge.options import BridgeOptions
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.plan_job import plan_job
from hetero.job.run.spec import run_spec
from hetero.monitoring.links import total_bytes
from hetero.monitoring.notice import Notice
from hetero.words.step import HostStep

QUICKSTART = Path(__file__).parents[1] / "configs" / "runs" / "quickstart.yaml"
STEPS, BATCH, MICRO_BATCH, LAST = 200, 8, 2, 20
PERTURBED = "perturbed"
OWN = Programs.rank
RANKS = {PERTURBED: "benchmarks.perturbed:main"}
"""What ranks run, where it is not the engine's own."""
NO_PACE = 1e-9


@dataclass
class Run:
    """What was heard of the training over one codec."""

    losses: list[float] = field(default_factory=list)
    bytes_sent: int = 0
    fallbacks: list[Notice] = field(default_factory=list)

    def record(self, reports: Sequence[HostStep]) -> None:
        self.losses += [report.totals.loss for report in reports if report.totals]
        self.bytes_sent += sum(total_bytes(report.sent) for report in reports)

    @property
    def loss(self) -> float:
        return mean(self.losses[-LAST:])


Runs = Mapping[str, Run]
"""Of one seed, by kind; the one named `none` is what the others are compared with."""


def quickstart(steps: int, lr: float | None = None) -> Job:
    """Its model, text and optimizer on one chip each of two families; `lr` None is its own."""
    job = load_job(QUICKSTART)
    stages = StagePlan(pool="nvidia", units=((0, 5),)), StagePlan(pool="ascend", units=((5, 10),))
    optimizer = {**job.train.optimizer.model_dump(), "schedule": "cosine", "warmup_steps": steps // 10}
    optimizer["lr"] = lr or optimizer["lr"]
    train = {**job.train.model_dump(), "steps": steps, "global_batch": BATCH, "micro_batch": 1, "optimizer": optimizer}
    changes = {
        "train": train,
        "pools": {name: {**job.pools[name].model_dump(), "count": 1, "tp": 1} for name in ("nvidia", "ascend")},
        "bridge": {},
        "balance": {
            "mode": "manual",
            "pipelines": [PipelinePlan(share=BATCH, micro_batch=MICRO_BATCH, stages=stages).model_dump()],
        },
    }
    return Job.model_validate({**job.unmasked(), **changes})


class Bench:
    """Standing ranks of each kind, which train one run after another; every run is an epoch."""

    def __init__(self, job: Job, text: Prepared, kinds: Sequence[str], stack: ExitStack) -> None:
        self._job, self._plan, self._text = job, plan_job(job).plan, text
        self._epoch, self._run = 0, Run()
        self._sessions: dict[str, Session] = {}
        for rank in {RANKS.get(kind, OWN) for kind in kinds}:
            fleet = replace(fleet_of(job.pools), programs=Programs(rank=rank))
            self._sessions[rank] = stack.enter_context(Session.start(fleet, LocalAgents(), self._hear))

    def train(self, kind: str, seed: int) -> Run:
        """Over a codec, or without one from other weights."""
        self._epoch += 1
        run = self._run = Run()
        session = self._sessions[RANKS.get(kind, OWN)]
        plan = self._plan.model_copy(update={"epoch": self._epoch})
        codec = kind if kind in CODECS else NONE.name
        job = self._job.model_copy(update={"train": self._job.train.model_copy(update={"seed": seed})})
        spec = run_spec(job, session.fleet, plan, self._text, NO_PACE)
        spec = spec.model_copy(update={"bridge": BridgeOptions.model_validate({"codec": codec})})
        session.configure(spec)
        session.run(job.train.steps, lambda _, reports: run.record(reports))
        return run

    def _hear(self, notice: Notice | CheckpointWritten) -> None:
        """A rank's notice is of the run that is under way."""
        if isinstance(notice, Notice) and notice.kind == "codec_fallback":
            self._run.fallbacks.append(notice)


def measure(job: Job, codecs: Sequence[str], seeds: int, say: Callable[[str], None]) -> list[Runs]:
    """All runs, seed by seed; after Ctrl-C those of the seeds that are whole. `say` hears how far it is."""
    found: list[Runs] = []
    kinds = (NONE.name, PERTURBED, *codecs)
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(job, prepare(job.data, Path(folder)), kinds, stack)
        for seed in range(seeds):
            runs: dict[str, Run] = {}
            for kind in kinds:
                runs[kind] = bench.train(kind, seed)
                say(f"seed {seed}, {kind}: loss {runs[kind].loss:.4f} ({_above(runs, kind):+.3%})")
            found.append(runs)
    return found


def figures(found: Sequence[Runs]) -> dict[str, float]:
    plain = [runs[NONE.name] for runs in found]
    told = {"first_loss": mean(run.losses[0] for run in plain), "loss": mean(run.loss for run in plain)}
    told |= {"steps": float(len(plain[0].losses)), "seeds": float(len(found))}
    for kind in (kind for kind in found[0] if kind != NONE.name):
        above = [_above(runs, kind) for runs in found]
        told[f"{kind}_loss"] = mean(above)
        if len(above) > 1:
            told[f"{kind}_loss_spread"] = stdev(above)
            told[f"{kind}_loss_error"] = stdev(above) / len(above) ** 0.5
        if kind in CODECS:
            told[f"{kind}_bytes"] = mean(runs[kind].bytes_sent / runs[NONE.name].bytes_sent for runs in found)
            told[f"{kind}_fallbacks"] = float(sum(len(runs[kind].fallbacks) for runs in found))
    return told


def _above(runs: Runs, kind: str) -> float:
    """By how much a run's loss is above the plain one's."""
    return runs[kind].loss / runs[NONE.name].loss - 1


def main() -> None:
    names = [name for name in CODECS if name != NONE.name]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="leave the others out")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--lr", type=float, help="the learning rate; by default the quickstart's")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind")
    options = parser.parse_args()
    job = quickstart(options.steps, options.lr)
    found = measure(job, options.only, options.seeds, lambda line: None if options.json else print(line, flush=True))
    if not found:
        raise SystemExit("no seed is whole")
    told = figures(found) | {"lr": job.train.optimizer.lr}
    print_report("codecs", told, emulated=True, quiet=options.json)


if __name__ == "__main__":
    main()
