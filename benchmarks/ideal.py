"""A step of an engine that costs nothing and whose messages take no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from statistics import median

from balancer.cost.times import Times, UnitTime, datasheet_times
from balancer.cost.topology import LinkSpec, Topology
from balancer.plan.plan import Plan, StagePlan
from balancer.problem import Problem
from balancer.simulate.simulate import Scenario, run
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.words.step import HostStep, StageTimes

HostReports = Sequence[HostStep]


def modelled_step_s(job: Job, plan: Plan, time_scale: float) -> float:
    """Emulated chips at their true speeds, which are hidden from planners."""
    chips, work = topology(job), workload(job)
    believed = datasheet_times(chips, work)

    def true(pool: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        emulate, time = job.pools[pool].emulate, believed.lookup(pool, tp, kind, micro_batch)
        speed = emulate.speed if emulate else 1.0
        return time.slowed(1 / speed)

    return run(Scenario(plan, Problem(chips, work, Times({}, true)), time_scale, free_links=True)).step_s


def measured_step_s(job: Job, plan: Plan, steps: Sequence[HostReports]) -> float:
    """Real chips: what the stages of one pipeline took in each step, laid on the schedule of the plan, one update after
    it; the median over the steps."""
    return median(_laid_out(job, plan, reports) for reports in steps)


def _laid_out(job: Job, plan: Plan, reports: HostReports) -> float:
    rows = [row for report in reports for row in report.stages]
    stages = plan.pipelines[0].stages
    names = [f"stage{number}" for number in range(len(stages))]
    renamed = [stage.model_copy(update={"pool": name}) for stage, name in zip(stages, names, strict=True)]
    per_unit = {names[row.stage]: _per_unit(job, stages[row.stage], row) for row in rows}
    pipeline = plan.pipelines[0].model_copy(update={"stages": tuple(renamed)})
    alone = plan.model_copy(update={"pipelines": (pipeline,)})
    found = run(
        Scenario(
            alone,
            Problem(_one_pool_per_stage(job, stages, names), workload(job), Times({}, lambda pool, *_: per_unit[pool])),
            free_links=True,
        )
    )  # fmt: skip
    return found.compute_s + sum(report.optimizer_s for report in reports) / len(rows)


def _per_unit(job: Job, stage: StagePlan, row: StageTimes) -> UnitTime:
    shares = len(stage.unit_indices()) * job.train.global_batch
    return UnitTime(row.forward_s / shares, (row.backward_s + row.weight_s) / shares, row.weight_s / shares)


def _one_pool_per_stage(job: Job, stages: Sequence[StagePlan], names: Sequence[str]) -> Topology:
    pools = topology(job)
    renamed = (replace(pools.pool(stage.pool), name=name) for stage, name in zip(stages, names, strict=True))
    return Topology(tuple(renamed), tuple(LinkSpec(ends, inf, 0.0) for ends in pairwise(names)))
