"""What a codec costs the training: the quickstart's model over each, from the same start on the same text.

    python -m benchmarks.codecs [--json] [--steps N] [--only bf16 int8 fp8]

One pipeline of two emulated chips of different families, cut in the middle, so that every activation and every gradient
of the boundary crosses in the codec. The learning rate is a quarter of the quickstart's and falls: at the full one runs
part so far that chance outweighs the codec. Chips are not paced: what counts is the loss, of which the mean over the
last steps is compared. `_loss` is by how much it is above the one without a codec, `_bytes` the bytes that crossed over
those of that run, `_fallbacks` how often the gate took a safer codec. `rounding_loss` is no codec at all, with the sums
in another order.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from balancer.plan import PipelinePlan, Plan, StagePlan
from benchmarks.report import print_report
from bridge.codec import CODECS, NONE
from bridge.options import BridgeOptions
from hetero.cluster.agent import LocalAgents
from hetero.cluster.instructions import News
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.load import load_job
from hetero.job.planning import plan_job
from hetero.job.spec import run_spec
from hetero.monitoring.links import total_bytes

QUICKSTART = Path(__file__).parents[1] / "configs" / "runs" / "quickstart.yaml"
STEPS, BATCH, MICRO_BATCH, LAST = 200, 8, 2, 20
LEARNING_RATE = 5e-4
ROUNDING = "rounding"
NO_PACE = 1e-9


@dataclass
class Run:
    """What was heard of the training over one codec."""

    losses: list[float] = field(default_factory=list)
    bytes_sent: int = 0
    fallbacks: list[News] = field(default_factory=list)

    def record(self, reports: Sequence[Mapping[str, Any]]) -> None:
        self.losses += [report["totals"]["loss"] for report in reports if report["totals"]]
        self.bytes_sent += sum(total_bytes(report["sent"]) for report in reports)

    @property
    def loss(self) -> float:
        return mean(self.losses[-LAST:])


def quickstart(steps: int) -> Job:
    """Its model, text and optimizer on one chip each of two families."""
    job = load_job(QUICKSTART)
    stages = StagePlan(pool="nvidia", units=((0, 5),)), StagePlan(pool="ascend", units=((5, 10),))
    schedule = {"lr": LEARNING_RATE, "schedule": "cosine", "warmup_steps": steps // 10}
    optimizer = {**job.train.optimizer.model_dump(), **schedule}
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
    return Job.model_validate({**job.resolved(), **changes})


def otherwise(plan: Plan) -> Plan:
    """The same plan with twice as many micro-batches."""
    halved = [pipeline.model_copy(update={"micro_batch": pipeline.micro_batch // 2}) for pipeline in plan.pipelines]
    return plan.model_copy(update={"pipelines": tuple(halved)})


@dataclass
class Bench:
    """A session that trains one codec after another; every run is an epoch."""

    job: Job
    plan: Plan
    text: Prepared
    runs: dict[str, Run] = field(default_factory=dict)

    def train(self, session: Session, name: str) -> None:
        """Over a codec, or without one but in another order of sums."""
        run = self.runs[name] = Run()
        plan = otherwise(self.plan) if name == ROUNDING else self.plan
        options = BridgeOptions() if name == ROUNDING else BridgeOptions.model_validate({"codec": name})
        spec = run_spec(
            self.job, session.fleet, plan.model_copy(update={"epoch": len(self.runs)}), self.text, NO_PACE
        ).model_copy(update={"bridge": options})
        session.configure(spec.model_dump(mode="json"))
        session.run(self.job.train.steps, lambda _, reports: run.record(reports))

    def hear(self, news: News) -> None:
        """A rank's news is of the run that is under way."""
        if news.kind == "codec_fallback":
            list(self.runs.values())[-1].fallbacks.append(news)


def measure(names: Sequence[str], steps: int, say: Callable[[str], None]) -> dict[str, Run]:
    """The runs by codec, the first without one, the second of the other order of sums. `say` hears how far it is."""
    job = quickstart(steps)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(job, plan_job(job).plan, prepare(job.data, Path(folder)))
        with Session.start(fleet_of(job.pools), LocalAgents(), bench.hear) as session:
            for name in (NONE.name, ROUNDING, *names):
                bench.train(session, name)
                say(f"{name}: loss {bench.runs[name].loss:.4f}")
    return bench.runs


def figures(runs: Mapping[str, Run]) -> dict[str, float]:
    plain = runs[NONE.name]
    found = {"first_loss": plain.losses[0], "loss": plain.loss, "steps": float(len(plain.losses))}
    for name, run in runs.items():
        if run is not plain:
            found[f"{name}_loss"] = run.loss / plain.loss - 1
        if name in CODECS and run is not plain:
            found[f"{name}_bytes"] = run.bytes_sent / plain.bytes_sent
            found[f"{name}_fallbacks"] = float(len(run.fallbacks))
    return found


def main() -> None:
    names = [name for name in CODECS if name != NONE.name]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="leave the others out")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    found = figures(
        measure(options.only, options.steps, lambda line: None if options.json else print(line, flush=True))
    )
    print_report("codecs", found, emulated=True, quiet=options.json)


if __name__ == "__main__":
    main()
