"""What a link costs that compute could hide: the step over a paced link against the step over an unlimited one.

    python -m benchmarks.exposed [--json] [--only stages sync] [--rounds N]

Two emulated chips of two families. `stages`: one pipeline, cut between them; `exposed_at_30`, `_60` and `_90` are by
how much longer the step takes, as a fraction, where an activation or a gradient is on its way for that percentage of
the time that the slower stage computes on a micro-batch. The warm-up is the balancer's own. `blocking_at_60` is the
same plan with sends that wait for delivery (benchmarks/blocking.py). `sync`: two pipelines, one on each chip; all
gradients that one owes the other take 60% of the time that it computes on a micro-batch. `sync_exposed` is with the
engine's own buckets, `sync_exposed_without_overlap` with one that is sent when all gradients are made, and comes back
when all of it is updated. `predicted_` is what the simulator says of the same case.

A step is what lies between the ends of two, since one may end with parameters on their way. Cases take turns in every
round, and a figure is the median over the rounds of the case's step over that round's step on an unlimited link.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

from balancer.completion.completion import complete
from balancer.cost.times import Times, datasheet_times, units_time
from balancer.cost.workload import GRADIENT_BYTES
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.search.cut import StageCost, cut
from balancer.simulate.simulate import Prediction, simulate
from benchmarks.report import print_report
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.job.run.spec import fleet_links, run_spec
from hetero.words.step import HostStep

ROOT = Path(__file__).parents[1]
STEPS = 3
"""Steps of one visit to a case. The first begins with all parameters there, and does not count."""
WHOLE = 1e6
"""A bucket of so many MiB is full when all gradients are in it."""
OWN, BLOCKING = Programs.rank, "benchmarks.blocking:main"
POOLS = {
    "nvidia": {"family": "cuda", "chip": "A800-80G"},
    "ascend": {"family": "ascend", "chip": "Ascend-910B2"},
}


@dataclass(frozen=True)
class Setting:
    """A model on two chips, whose slower stage takes `stage_s` for a micro-batch."""

    name: str
    dimensions: Mapping[str, int]
    seq_len: int
    batch: int
    stage_s: float

    def job(self, gbit_per_s: float | None = None, bucket_mib: float = 0.5) -> Job:
        emulate = {"count": 1, "emulate": {"precision": "bfloat16"}, "env": {"vars": {"PYTHONPATH": str(ROOT)}}}
        links = [{"between": list(POOLS), "gbit_per_s": gbit_per_s}]
        return Job.model_validate(
            {
                "model": {"dimensions": {"family": "llama", **self.dimensions}},
                "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": self.seq_len},
                "train": {"steps": 10_000, "global_batch": self.batch},
                "pools": {name: pool | emulate for name, pool in POOLS.items()},
                "bridge": {"links": links, "sync_bucket_mib": bucket_mib},
                "monitor": {"trace_every": 0},
            }
        )

    @cached_property
    def times(self) -> Times:
        return datasheet_times(topology(self.job()), workload(self.job()))

    @cached_property
    def written(self) -> Plan:
        """What a person would write: stages, cuts and shares."""
        if self.name == "sync":
            return Plan(pipelines=tuple(self._pipeline(self.batch // 2, (pool,)) for pool in POOLS))
        return Plan(pipelines=(self._pipeline(self.batch, tuple(POOLS)),))

    def _pipeline(self, share: int, pools: Sequence[str]) -> PipelinePlan:
        work = workload(self.job())
        costs = [StageCost.of_units([self.times.lookup(pool, 1, u.kind).total_s for u in work.units]) for pool in pools]
        ranges = cut(costs, work.cuts)
        assert ranges is not None
        stages = [StagePlan(pool=pool, units=(units,)) for pool, units in zip(pools, ranges, strict=True)]
        return PipelinePlan(share=share, stages=tuple(stages))

    @cached_property
    def datasheet_s(self) -> float:
        """The slower stage's time for a micro-batch on chips that nobody slows down."""
        work = workload(self.job())
        stages = [stage for _, stage in self.written.stages()]
        return max(units_time(self.times, work, stage.pool, 1, stage.unit_indices()).total_s for stage in stages)

    @property
    def time_scale(self) -> float:
        return self.stage_s / self.datasheet_s

    def gbit_per_s(self, ratio: float) -> float:
        """The rate at which what travels takes `ratio` of a stage's time."""
        work = workload(self.job())
        if self.name == "stages":
            bytes_ = max(unit.boundary_bytes for unit in work.units)
        else:
            plan = complete(self.written, Problem(topology(self.job()), work))
            owned = [sum(work.units[u].parameters for u in stage.owned_units()) for _, stage in plan.stages()]
            bytes_ = GRADIENT_BYTES * max(owned)
        return 8e-9 * bytes_ / (ratio * self.datasheet_s)


@dataclass(frozen=True)
class Case:
    """One step to be timed. The case named `free` is the one that the others are held against."""

    name: str
    setting: Setting
    job: Job
    rank: str = OWN

    @cached_property
    def plan(self) -> Plan:
        return complete(self.setting.written, self._problem)

    @cached_property
    def prediction(self) -> Prediction:
        return simulate(self.plan, self._problem, self.setting.time_scale)

    @property
    def _problem(self) -> Problem:
        return Problem(topology(self.job), workload(self.job), self.setting.times)


def settings() -> list[Setting]:
    """A small model whose arithmetic is done long before its time, and one with gradients worth sending."""
    small = {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 4, "ffn": 344, "vocab": 257}
    big = {"layers": 4, "hidden": 256, "heads": 8, "kv_heads": 4, "ffn": 688, "vocab": 257}
    return [Setting("stages", small, 64, 128, 0.06), Setting("sync", big, 64, 32, 0.6)]


def cases(setting: Setting) -> list[Case]:
    free = Case("free", setting, setting.job())
    if setting.name == "stages":
        rates = {percent: setting.gbit_per_s(percent / 100) for percent in (30, 60, 90)}
        paced = [Case(f"exposed_at_{percent}", setting, setting.job(rate)) for percent, rate in rates.items()]
        return [free, *paced, Case("blocking_at_60", setting, setting.job(rates[60]), BLOCKING)]
    rate = setting.gbit_per_s(0.6)
    whole = Case("sync_exposed_without_overlap", setting, setting.job(rate, WHOLE))
    return [free, Case("sync_exposed", setting, setting.job(rate)), whole]


class Bench:
    """Standing ranks of both kinds, which run one case after another."""

    def __init__(self, setting: Setting, folder: Path, stack: ExitStack) -> None:
        self._setting, job = setting, setting.job()
        self._text: Prepared = prepare(job.data, folder)
        self._sessions: dict[str, Session] = {}
        for rank in {case.rank for case in cases(setting)}:
            fleet = replace(fleet_of(job.pools, fleet_links(job)), programs=Programs(rank=rank))
            self._sessions[rank] = stack.enter_context(Session.start(fleet, LocalAgents()))
        self._epoch = -1
        self.overruns: dict[str, int] = {}

    def visit(self, case: Case, count: int = STEPS) -> float:
        """The median of a few steps."""
        self._epoch += 1
        session, scale = self._sessions[case.rank], self._setting.time_scale
        plan = case.plan.model_copy(update={"epoch": self._epoch})
        session.relink(fleet_links(case.job, scale))
        session.configure(run_spec(case.job, session.fleet, plan, self._text, scale))
        ends: list[float] = []

        def record(_: int, hosts: Sequence[HostStep]) -> None:
            ends.append(max(host.end for host in hosts))
            self.overruns[case.name] = self.overruns.get(case.name, 0) + any(host.overrun for host in hosts)

        session.run(count, record)
        return median(after - before for before, after in pairwise(ends))


def measure(setting: Setting, rounds: int) -> tuple[dict[str, float], list[str]]:
    """The figures of a setting, and what makes them void."""
    every = cases(setting)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(setting, Path(folder), stack)
        for case in {case.rank: case for case in reversed(every)}.values():
            bench.visit(case, 2)  # warms its ranks up
        bench.overruns.clear()
        found = [_round(bench, every, number) for number in range(rounds)]
        overruns = bench.overruns
    free, *others = every
    steps = {case.name: median(seconds[case.name] for seconds in found) for case in every}
    figures = {case.name: median(r[case.name] / r["free"] for r in found) - 1 for case in others}
    for case in others:
        if case.rank == OWN:
            figures[f"predicted_{case.name}"] = case.prediction.step_s / free.prediction.step_s - 1
            figures[f"{case.name}_warmup"] = max(case.plan.pipelines[0].warmups())
    figures[f"{setting.name}_step_s"] = steps["free"]
    figures[f"{setting.name}_prediction_ratio"] = free.prediction.step_s / steps["free"]
    figures[f"{setting.name}_micro_batches"] = free.plan.pipelines[0].micro_batches
    figures[f"{setting.name}_link_ratio"] = others[-1].prediction.link_ratio
    return figures, [f"{name}: {n} steps overran their modelled time" for name, n in overruns.items() if n]


def _round(bench: Bench, every: Sequence[Case], number: int) -> dict[str, float]:
    """Every case once; which comes first changes from round to round."""
    turned = [*every[number % len(every) :], *every[: number % len(every)]]
    return {case.name: bench.visit(case) for case in turned}


def main() -> None:
    every = {setting.name: setting for setting in settings()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=list(every), default=list(every), help="leave the other out")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    void: list[str] = []
    for name in options.only:
        found, reasons = measure(every[name], options.rounds)
        figures |= found
        void += reasons
    print_report("exposed", figures, emulated=True, void="; ".join(void) or None, quiet=options.json)


if __name__ == "__main__":
    main()
