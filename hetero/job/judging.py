"""How a run's steps compare with what its plan promises: the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.cost import Times, datasheet_times
from balancer.ledger import ledger
from balancer.plan import Plan
from balancer.simulate import simulate
from hetero.job.job import Job
from hetero.job.planning import plan_job, topology, workload


@dataclass(frozen=True)
class Judged:
    """A step as predicted and as measured. The terms of a ledger are parts of 1 that, with the efficiency against the
    ideal, sum to 1; of the measured one, `other` holds what the prediction does not foresee. Prediction and ideal are
    by the units' times as they were `calibrated` before the run, or else by the chips' datasheets."""

    calibrated: bool
    predicted_step_s: float
    measured_step_s: float
    predicted: Mapping[str, float]
    measured: Mapping[str, float]

    @property
    def predicted_efficiency(self) -> float:
        return 1 - sum(self.predicted.values())

    @property
    def measured_efficiency(self) -> float:
        return 1 - sum(self.measured.values())


def judge(
    job: Job, plan: Plan, measured_step_s: float, time_scale: float = 1.0, calibrated: Sequence[Mapping[str, Any]] = ()
) -> Judged:
    """`time_scale` is how much slower emulated chips and links were made, `calibrated` what was measured before the
    run, a row per pool, tp and kind of unit. Raises the balancer's errors."""
    chips, work = topology(job), workload(job)
    times = datasheet_times(chips, work)
    if calibrated:
        times = Times.from_measurements(calibrated, otherwise=times)
    prediction = simulate(plan_job(job, given=plan).plan, chips, work, times, time_scale)
    ledgers = ledger(prediction), ledger(prediction, measured_step_s)
    return Judged(bool(calibrated), prediction.step_s, measured_step_s, *ledgers)
