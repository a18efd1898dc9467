"""What filling the bubble is worth: one forced pipeline over three families, scheduled in several ways.

    python -m benchmarks.schedules [--json] [--only 1f1b zero-bubble v interleaved] [--rounds N]

Three emulated chips, one stage each, cut by half layers where it suits their speeds, over links that are busy for a
third of the slowest stage's time. Plans name the schedule and the cut; chunks, warm-ups and ticks are completion's own.
`zero_bubble_vs_1f1b` is the measured step of 1F1B over that of zero bubble, `_efficiency` the speed over that of all
chips that never wait, the update left out. `_ideal` is the same by arithmetic: no step is shorter than what the fullest
stage computes, and what comes before it: the way of the first forward, and for 1F1B that of the last backward too.
`prediction_error` is the largest of the differences between a simulated and a measured step, as a fraction.

Schedules take turns in every round on the same standing ranks; a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median

from balancer.completion.completion import complete
from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.times import UnitTime, transfer_s, units_time
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.action import Kind
from balancer.search.cut import StageCost, cut
from balancer.simulate.simulate import Prediction, simulate
from benchmarks.ideal import HostReports
from benchmarks.report import print_report
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.job.run.spec import fleet_links, run_spec

ROOT = Path(__file__).parents[1]
STEPS = 3
"""Steps of one visit to a schedule; from the end of one to the end of the next is a step's time."""
STAGE_S = 0.4
"""What the slowest stage takes for a micro-batch."""
LINK = 0.35
"""The part of that for which an activation, or a gradient, is on its way."""
MICRO_BATCHES = 32
PLAIN, SPLIT = "1f1b", "zero-bubble"
POOLS = {
    "nvidia": {"family": "cuda", "chip": "A800-80G"},
    "ascend": {"family": "ascend", "chip": "Ascend-910B2"},
    "kunlun": {"family": "kunlun", "chip": "Kunlun-P800"},
}


def job(layers: int, gbit_per_s: float | None = None) -> Job:
    """A small model, whose arithmetic is done long before its time."""
    emulate = {"count": 1, "emulate": {"precision": "bfloat16"}, "env": {"vars": {"PYTHONPATH": str(ROOT)}}}
    small = {"family": "llama", "layers": layers, "hidden": 64, "heads": 4, "kv_heads": 4, "ffn": 344, "vocab": 257}
    return Job.model_validate(
        {
            "model": {"dimensions": small},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 64},
            "train": {"steps": 10_000, "global_batch": MICRO_BATCHES},
            "pools": {name: pool | emulate for name, pool in POOLS.items()},
            "bridge": {"links": [{"between": list(ends), "gbit_per_s": gbit_per_s} for ends in pairwise(POOLS)]},
            "monitor": {"trace_every": 0},
        }
    )


@dataclass(frozen=True)
class Case:
    """One schedule of the pipeline."""

    schedule: str
    job: Job
    problem: Problem
    cut: tuple[tuple[int, int], ...]

    @cached_property
    def plan(self) -> Plan:
        stages = (StagePlan(pool=pool, units=(units,)) for pool, units in zip(POOLS, self.cut, strict=True))
        pipeline = PipelinePlan(share=MICRO_BATCHES, stages=tuple(stages))
        return complete(Plan(schedule=self.schedule, pipelines=(pipeline,)), self.problem)

    @cached_property
    def time_scale(self) -> float:
        """So that the slowest stage of one chunk takes its time."""
        return STAGE_S / max(self._time(pool, [units]).total_s for pool, units in zip(POOLS, self.cut, strict=True))

    @cached_property
    def prediction(self) -> Prediction:
        return simulate(self.plan, self.problem, self.time_scale)

    @property
    def least_s(self) -> float:
        """No step of this kind is shorter, by arithmetic."""
        pipeline = self.plan.pipelines[0]
        chunks, placed = pipeline.chunks(), pipeline.stage_of_chunk()
        ways, units = [], self.problem.workload.units
        for here, there in pairwise(chunks):
            ends = pipeline.stages[here.stage].pool, pipeline.stages[there.stage].pool
            hop_s = 0.0 if here.stage == there.stage else transfer_s(
                self.problem.topology.link(*ends), units[here.units[1] - 1].boundary_bytes
            )  # fmt: skip
            time = self._time(ends[0], [here.units])
            ways.append(time.total_s + 2 * hop_s if self._is_whole else time.forward_s + hop_s)
        before = list(accumulate(ways, initial=0.0))
        stages = enumerate(pipeline.stages)
        busy = (before[placed.index(s)] + MICRO_BATCHES * self._time(st.pool, st.units).total_s for s, st in stages)
        return self.time_scale * max(busy) + self.prediction.sync_s

    def efficiency(self, step_s: float) -> float:
        """Of chips that compute all the time, the update aside: that of a model as small as this takes long."""
        work, ideal = self.problem.workload, (self.problem.topology, self.problem.workload, self.problem.times)
        least_s = self.time_scale * work.global_batch * work.seq_len / ideal_tokens_per_s(*ideal)
        return least_s / (step_s - self.prediction.sync_s)

    @property
    def _is_whole(self) -> bool:
        """Whether backwards are one action."""
        return any(action.kind is Kind.B for spans in self.prediction.spans.values() for action, _, _ in spans)

    def _time(self, pool: str, ranges: Sequence[tuple[int, int]]) -> UnitTime:
        each = [unit for units in ranges for unit in range(*units)]
        return units_time(self.problem.times, self.problem.workload, pool, 1, each)


def cases(schedules: Sequence[str], layers: int) -> list[Case]:
    free = problem(job(layers))
    work = free.workload
    costs = [StageCost.of_units([free.times.lookup(pool, 1, u.kind).total_s for u in work.units]) for pool in POOLS]
    ranges = cut(costs, work.cuts)
    assert ranges is not None
    stage_s = max(cost.between(units) for cost, units in zip(costs, ranges, strict=True))
    paced = job(layers, 8e-9 * max(unit.boundary_bytes for unit in work.units) / (LINK * stage_s))
    return [Case(name, paced, problem(paced), ranges) for name in schedules]


class Bench:
    """Standing ranks, which run one schedule after another."""

    def __init__(self, job: Job, session: Session, text: Prepared) -> None:
        self._job, self._session, self._text, self._epoch = job, session, text, -1
        self.overruns = 0

    def visit(self, case: Case, count: int = STEPS) -> float:
        """The median step of a few, of which the first only warms up: one begins while the one before still ends."""
        self._epoch += 1
        plan, ends = case.plan.model_copy(update={"epoch": self._epoch}), list[float]()
        self._session.configure(run_spec(self._job, self._session.fleet, plan, self._text, case.time_scale))

        def record(_: int, hosts: HostReports) -> None:
            ends.append(max(h.end for h in hosts))
            self.overruns += any(h.overrun for h in hosts)

        self._session.run(count, record)
        return median(after - before for before, after in pairwise(ends))


def measure(every: Sequence[Case], rounds: int) -> tuple[dict[str, float], str | None]:
    """Seconds of a step by schedule, and what makes them void."""
    one = every[0]
    with tempfile.TemporaryDirectory() as folder:
        fleet = fleet_of(one.job.pools, fleet_links(one.job, one.time_scale))
        with Session.start(fleet, LocalAgents()) as session:
            bench = Bench(one.job, session, prepare(one.job.data, Path(folder)))
            bench.visit(one, 2)  # warms the ranks up
            bench.overruns = 0
            found = [{case.schedule: bench.visit(case) for case in every} for _ in range(rounds)]
    steps = {case.schedule: median(seconds[case.schedule] for seconds in found) for case in every}
    return steps, f"{bench.overruns} steps overran their modelled time" if bench.overruns else None


def figures(every: Sequence[Case], steps: Mapping[str, float]) -> dict[str, float]:
    plain, found = next((case for case in every if case.schedule == PLAIN), None), dict[str, float]()
    for case in every:
        name, step_s = case.schedule.replace("-", "_"), steps[case.schedule]
        if plain is not None and case is not plain:
            found[f"{name}_vs_1f1b"] = steps[PLAIN] / step_s
            found[f"{name}_vs_1f1b_ideal"] = plain.least_s / case.least_s
        found[f"{name}_efficiency"] = case.efficiency(step_s)
        found[f"{name}_efficiency_ideal"] = case.efficiency(case.least_s)
        found[f"{name}_step_s"] = step_s
        found[f"{name}_prediction_error"] = abs(case.prediction.step_s / step_s - 1)
        found[f"{name}_warmup"] = max(case.plan.pipelines[0].warmups())
    found["prediction_error"] = max(abs(case.prediction.step_s / steps[case.schedule] - 1) for case in every)
    found["link_ratio"] = min(case.prediction.link_ratio for case in every)
    return found | {"micro_batches": MICRO_BATCHES, "layers": len(every[0].problem.workload.units) // 2 - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", default=[PLAIN, SPLIT], help="the schedules")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    every = cases(options.only, options.layers)
    steps, void = measure(every, options.rounds)
    print_report("schedules", figures(every, steps), emulated=True, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
