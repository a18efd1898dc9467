"""What a run's own stages say of the speed of its chips."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.plan.plan import Plan
from balancer.simulate.simulate import simulate
from hetero.job.job import Job
from hetero.job.planning.judging import MeasuredRun, judge
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import problem
from tests.unit.hetero.monitoring import synthetic


def _two_actions() -> dict[str, Any]:
    """By ticks of the plan's own, whatever is expected."""
    plan = synthetic.plan() | {"schedule": "zero-bubble"}
    plan["pipelines"][0]["ticks"] = {"chunks": [[5, 6, 4], [5, 6, 4]], "hops": [[0, 0, 0]]}
    return plan


@pytest.mark.parametrize("written", [synthetic.plan(), _two_actions()], ids=["one action", "two actions"])
def test_stages_that_took_what_was_expected_are_no_slower(written: dict[str, Any]) -> None:
    """Collectives included that only a whole backward hides."""
    job = Job.model_validate(synthetic.job())
    plan = plan_job(job, given=Plan.model_validate(written)).plan
    expected = simulate(plan, problem(job))
    run = MeasuredRun(expected.step_s, expected.busy_s)
    judged = judge(job, plan, run)
    assert judged.source == "run"
    assert judged.predicted_step_s == pytest.approx(expected.step_s)
