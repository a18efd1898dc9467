"""How a run's steps compare with what its plan promises: the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from balancer.cost import datasheet_times
from balancer.ledger import ledger
from balancer.plan import Plan
from balancer.simulate import simulate
from hetero.job.job import Job
from hetero.job.planning import plan_job, topology, workload


@dataclass(frozen=True)
class Judged:
    """A step by the chips' datasheets and as measured. The terms of a ledger are parts of 1 that, with the efficiency
    against the ideal, sum to 1; of the measured one, `other` holds what the datasheets do not foresee."""

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


def judge(job: Job, plan: Plan, measured_step_s: float, time_scale: float = 1.0) -> Judged:
    """`time_scale` is how much slower emulated chips and links were made. Raises the balancer's errors."""
    chips, work = topology(job), workload(job)
    completed = plan_job(job, given=plan).plan
    prediction = simulate(completed, chips, work, datasheet_times(chips, work), time_scale)
    return Judged(prediction.step_s, measured_step_s, ledger(prediction), ledger(prediction, measured_step_s))
