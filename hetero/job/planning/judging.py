"""How a run's steps compare with what its plan promises: the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from balancer.cost.stage_times import stage_time
from balancer.cost.times import Times, datasheet_times
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.schedule.lowering import backwards_apart
from balancer.search.ledger import ledger
from balancer.search.missed import MeasuredStage, MeasuredStep
from balancer.search.pool_ledger import PoolLedger, PoolTime, pool_ledgers
from balancer.simulate.simulate import simulate
from hetero.job.job import Job
from hetero.job.planning.links import Probed
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import topology, workload
from hetero.job.planning.profile import Profile

SpeedSource = Literal["calibration", "run", "datasheet"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class MeasuredRun:
    """What is known of a run: the seconds of a step, those that each stage, by (pipeline, stage), computed in it, how
    much slower emulated chips and links were made, and what was measured before the plan was made: `calibrated` chips,
    a row per pool, tp and kind of unit, their `rates`, and `probed` links, a row per direction. `waits_s` are a stage's
    seconds for others and for bytes, `pools` where the time of their chips went."""

    step_s: float
    stages_s: Mapping[Place, float]
    time_scale: float = 1.0
    calibrated: Sequence[Row] = ()
    probed: Sequence[Row] = ()
    waits_s: Mapping[Place, float] = field(default_factory=dict)
    pools: Mapping[str, PoolTime] = field(default_factory=dict)
    rates: Sequence[Row] = ()

    def step(self, plan: Plan) -> MeasuredStep:
        """By stage, where its waits are known."""
        stages = {}
        for place, stage in plan.stages():
            if place in self.stages_s and place in self.waits_s and stage.pool in self.pools:
                time = self.pools[stage.pool]
                told = self.stages_s[place], self.step_s * time.update, self.waits_s[place], self.step_s * time.link
                stages[place] = MeasuredStage(*told)
        return MeasuredStep(self.step_s, stages)


@dataclass(frozen=True)
class Judged:
    """A step as predicted and as measured. The terms of a ledger are parts of 1 that, with the efficiency against the
    ideal, sum to 1; the measured one has the causes of what the prediction does not foresee too. `pools` is that of
    each pool and of all, from their own clocks.

    Prediction and ideal are by the chips' speeds, whose `source` is a calibration, else the run itself: how long its
    stages took. Where the run says nothing of them either, it is the datasheets.
    """

    source: SpeedSource
    predicted_step_s: float
    measured_step_s: float
    predicted: Mapping[str, float]
    measured: Mapping[str, float]
    pools: Mapping[str, PoolLedger]

    @property
    def predicted_efficiency(self) -> float:
        return 1 - sum(self.predicted.values())

    @property
    def measured_efficiency(self) -> float:
        return 1 - sum(self.measured.values())


def judge(job: Job, plan: Plan, run: MeasuredRun) -> Judged:
    """Raises the balancer's errors."""
    probed, rates = Probed(run.probed, run.time_scale), Profile(run.rates)
    chips, work = topology(job, probed, profile=rates), workload(job)
    plan = plan_job(job, given=plan, probed=probed, profile=rates).plan
    source, times = _times(chips, work, plan, run)
    prediction = simulate(plan, Problem(chips, work, times), run.time_scale)
    measured = ledger(prediction, run.step(plan))
    pools = pool_ledgers(prediction.scenario, run.step_s, run.pools)
    return Judged(source, prediction.step_s, run.step_s, ledger(prediction), measured, pools)


def _times(chips: Topology, work: Workload, plan: Plan, run: MeasuredRun) -> tuple[SpeedSource, Times]:
    believed = datasheet_times(chips, work)
    if run.calibrated:
        return "calibration", Times.from_measurements(run.calibrated, otherwise=believed)
    if rows := _stage_rows(chips, work, plan, run, believed):
        return "run", Times.from_measurements(rows, otherwise=believed)
    return "datasheet", believed


def _stage_rows(chips: Topology, work: Workload, plan: Plan, run: MeasuredRun, believed: Times) -> list[Row]:
    """The units of each pool and tp that the plan uses, as much slower than believed as the stages were in all."""
    spent: dict[tuple[str, int], list[float]] = {}
    for p, pipeline in enumerate(plan.pipelines):
        for s, (stage, apart) in enumerate(zip(pipeline.stages, backwards_apart(pipeline, plan.schedule), strict=True)):
            each = stage_time(believed, chips, work, stage, stage.unit_indices())
            so_far = spent.setdefault((stage.pool, stage.tp), [0.0, 0.0])
            so_far[0] += run.stages_s.get((p, s), 0.0)
            so_far[1] += pipeline.share * run.time_scale * each.taken_s(apart)
    kinds = {unit.kind for unit in work.units}
    return [
        {
            "pool": pool,
            "tp": tp,
            "kind": kind,
            "forward_s": ratio * time.forward_s,
            "backward_s": ratio * time.backward_s,
        }
        for (pool, tp), (took_s, expected_s) in spent.items()
        for kind in kinds
        if took_s > 0 and expected_s > 0
        for ratio, time in [(took_s / expected_s, believed.lookup(pool, tp, kind))]
    ]
