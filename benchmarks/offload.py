"""What an optimizer in host memory costs a step: overlapped with its end and the next one's beginning, and plainly.

    python -m benchmarks.offload [--json] [--rounds N]

One emulated chip, four micro-batches. Its link to its host, and that host's update, are as slow as lets what leaves, is
updated and comes back take `COST` of a step, one after another. `offload_step_ratio` is the step with the optimizer in
host memory over that with it on the chip, `offload_step_ratio_plain` the same where all of that happens at the step's
end (benchmarks/plain_offload.py); `predicted_` is what the simulator says of the former. A step is what lies between
the ends of two. Cases take turns in every round, and a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times, update_s
from balancer.cost.workload import GRADIENT_BYTES
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.simulate.simulate import Prediction, simulate
from benchmarks.report import print_report
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import prepare
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.job.run.spec import fleet_links, run_spec
from hetero.words.step import HostStep

ROOT = Path(__file__).parents[1]
MODEL = {"family": "llama", "layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "ffn": 344, "vocab": 257}
SEQ_LEN, MICRO_BATCH, MICRO_BATCHES = 128, 4, 4
STAGE_S = 0.6
"""Of a micro-batch."""
COST = 0.32
"""Of a step's forwards and backwards. The chip's own update of this small model takes half as much."""
STEPS = 3
"""Of one visit to a case. The first begins with all values there, and does not count."""
PROGRAMS = {"chip": Programs.rank, "host": Programs.rank, "plain": "benchmarks.plain_offload:main"}


def job(host_gb_per_s: float | None = None) -> Job:
    emulate = {"precision": "bfloat16", "host_gb_per_s": host_gb_per_s}
    variables = {"env": {"vars": {"PYTHONPATH": str(ROOT)}}}
    return Job.model_validate(
        {
            "model": {"dimensions": MODEL},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": SEQ_LEN},
            "train": {"steps": 10_000, "global_batch": MICRO_BATCH * MICRO_BATCHES},
            "pools": {"nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "emulate": emulate} | variables},
            "monitor": {"trace_every": 0},
        }
    )


@dataclass(frozen=True)
class Case:
    job: Job
    optimizer: str

    @cached_property
    def problem(self) -> Problem:
        chips, work = topology(self.job), workload(self.job)
        return Problem(chips, work, datasheet_times(chips, work))

    @cached_property
    def plan(self) -> Plan:
        units = len(self.problem.workload.units)
        stage = StagePlan(pool="nvidia", units=((0, units),), optimizer=self.optimizer)
        share = MICRO_BATCH * MICRO_BATCHES
        written = Plan(pipelines=(PipelinePlan(share=share, micro_batch=MICRO_BATCH, stages=(stage,)),))
        return complete(written, self.problem)

    @cached_property
    def stage_s(self) -> float:
        """Of a micro-batch, by the data sheet."""
        units = self.problem.workload.units
        return MICRO_BATCH * sum(self.problem.times.lookup("nvidia", 1, unit.kind).total_s for unit in units)

    @property
    def time_scale(self) -> float:
        return STAGE_S / self.stage_s

    @property
    def prediction(self) -> Prediction:
        return simulate(self.plan, self.problem, self.time_scale)


def host_gb_per_s(case: Case) -> float:
    """So that sums, update and values take `COST`."""
    stage, chip = case.plan.pipelines[0].stages[0], case.problem.topology.pools[0].chip
    moved = 2 * GRADIENT_BYTES * sum(unit.parameters for unit in case.problem.workload.units)
    at_one = moved + update_s(replace(chip, host_bytes_per_s=1.0), case.problem.workload, stage)
    return 1e-9 * at_one / (COST * MICRO_BATCHES * case.stage_s)


def measure(rounds: int) -> tuple[dict[str, float], list[str]]:
    """The figures, and what makes them void."""
    slow = job(host_gb_per_s(Case(job(), "host")))
    cases = {name: Case(slow, "chip" if name == "chip" else "host") for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(slow, Path(folder), stack)
        for name, case in cases.items():
            bench.visit(name, case, 2)
        bench.overruns.clear()
        found = [{name: bench.visit(name, case) for name, case in cases.items()} for _ in range(rounds)]
        overruns = bench.overruns
    steps = {name: median(one[name] for one in found) for name in cases}
    figures = {
        "offload_step_ratio": median(one["host"] / one["chip"] for one in found),
        "offload_step_ratio_plain": median(one["plain"] / one["chip"] for one in found),
        "predicted_offload_step_ratio": cases["host"].prediction.step_s / cases["chip"].prediction.step_s,
        "offload_step_s": steps["chip"],
        "offload_prediction_ratio": cases["chip"].prediction.step_s / steps["chip"],
        "offload_micro_batches": MICRO_BATCHES,
    }
    return figures, [f"{name}: {n} steps overran their modelled time" for name, n in overruns.items() if n]


class Bench:
    """Standing ranks of each kind, which run one case after another."""

    def __init__(self, job: Job, folder: Path, stack: ExitStack) -> None:
        self._text, self._epoch, self.overruns = prepare(job.data, folder), -1, dict[str, int]()
        fleet, self._sessions = fleet_of(job.pools, fleet_links(job)), dict[str, Session]()
        for rank in dict.fromkeys(PROGRAMS.values()):
            programs = replace(fleet, programs=Programs(rank=rank))
            self._sessions[rank] = stack.enter_context(Session.start(programs, LocalAgents()))

    def visit(self, name: str, case: Case, count: int = STEPS) -> float:
        """The median of a few steps."""
        self._epoch += 1
        session = self._sessions[PROGRAMS[name]]
        plan = case.plan.model_copy(update={"epoch": self._epoch})
        session.configure(run_spec(case.job, session.fleet, plan, self._text, case.time_scale))
        ends: list[float] = []

        def record(step: int, hosts: Sequence[HostStep]) -> None:
            ends.append(max(host.end for host in hosts))
            self.overruns[name] = self.overruns.get(name, 0) + (step > 0 and any(host.overrun for host in hosts))

        session.run(count, record)
        return median(after - before for before, after in pairwise(ends))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures, void = measure(options.rounds)
    print_report("offload", figures, emulated=True, void="; ".join(void) or None, quiet=options.json)


if __name__ == "__main__":
    main()
