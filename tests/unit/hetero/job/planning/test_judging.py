"""What a run's own stages say of the speed of its chips."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.plan.plan import Plan
from balancer.search.pool_ledger import PoolTime
from balancer.simulate.simulate import simulate
from hetero.job.job import Job
from hetero.job.planning.judging import MeasuredRun, judge
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import problem
from hetero.job.planning.profile import Profile
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


def test_rates_that_were_measured_are_those_of_the_prediction() -> None:
    """Chips that update a million parameters a second."""
    job = Job.model_validate(synthetic.job())
    plan = plan_job(job, given=Plan.model_validate(synthetic.plan())).plan
    rates = [{"pool": pool, "part": "update", "tp": 1, "per_s": 1e6} for pool in plan.pools()]
    asked = problem(job, profile=Profile(rates))
    expected = simulate(plan, asked)
    judged = judge(job, plan, MeasuredRun(expected.step_s, expected.busy_s, rates=rates))
    assert judged.predicted_step_s == pytest.approx(expected.step_s)
    assert judged.predicted["update"] > 10 * judge(job, plan, MeasuredRun(1.0, expected.busy_s)).predicted["update"]


def test_what_the_stages_tell_names_what_the_prediction_missed() -> None:
    """All of them a tenth slower than they were calibrated."""
    job = Job.model_validate(synthetic.job())
    plan = plan_job(job, given=Plan.model_validate(synthetic.plan())).plan
    expected = simulate(plan, problem(job))
    times = problem(job).times
    rows = [
        {"pool": stage.pool, "tp": stage.tp, "kind": kind, **times.lookup(stage.pool, stage.tp, kind)._asdict()}
        for _, stage in plan.stages()
        for kind in {unit.kind for unit in expected.scenario.workload.units}
    ]
    step_s, busy_s = 1.1 * expected.step_s, {place: 1.1 * busy for place, busy in expected.busy_s.items()}
    waits_s = {place: step_s - busy for place, busy in busy_s.items()}
    pools = {name: PoolTime(0.8, 0.0, 0.2, 0.0, 0.0) for name in plan.pools()}
    judged = judge(job, plan, MeasuredRun(step_s, busy_s, 1.0, rows, (), waits_s, pools))
    assert judged.measured["slower_chips"] == pytest.approx(0.1 / 1.1, abs=0.01)
    assert abs(judged.measured["other"]) < 0.01
    assert set(judged.pools) == {*pools, "all"}
