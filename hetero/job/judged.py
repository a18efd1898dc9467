"""A run that is followed, judged by its own job file and plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from balancer.plan.plan import Plan
from balancer.search.pool_ledger import PoolTime
from hetero.errors import explains_itself, render
from hetero.job.file.load import recorded_job
from hetero.job.job import Job
from hetero.job.planning.computing import pool_work
from hetero.job.planning.judging import MeasuredRun, judge
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.follow import Follower
from hetero.monitoring.report.tables import FlopsTable, LedgerRow, LedgerTable
from hetero.monitoring.status import (
    PoolStatus,
    calibrated,
    probed,
    rated,
    time_scale,
    typical_pools,
    typical_stages_s,
    typical_step_s,
    typical_waits_s,
)
from hetero.monitoring.waterfall import Computing, Term, TimeSpent, waterfall

Table = TypeVar("Table")

NONSENSE = (ValueError, LookupError, TypeError, ArithmeticError)
"""What comes of figures that no run has written."""


def ledger_table(follower: Follower) -> LedgerTable:
    """Of the recent steps. Takes some simulations of the plan."""

    def judged(job: Job, plan: Plan) -> LedgerTable:
        scale, found = time_scale(follower) or 1.0, (calibrated(follower), probed(follower))
        told = typical_stages_s(follower), scale, *found, typical_waits_s(follower)
        spent = {pool.name: _spent(pool) for pool in typical_pools(follower) if pool.busy > 0}
        judged = judge(job, plan, MeasuredRun(typical_step_s(follower) or 0.0, *told, spent, rated(follower)))
        rows = [LedgerRow("efficiency against the ideal", judged.predicted_efficiency, judged.measured_efficiency)]
        rows += [
            LedgerRow(term.replace("_", " "), judged.predicted.get(term, 0.0), value)
            for term, value in judged.measured.items()
        ]
        return LedgerTable(rows, judged.source, judged.predicted_step_s, judged.measured_step_s, judged.pools)

    return _by_job_and_plan(follower, judged, lambda why: LedgerTable(missing=why))


def flops_table(follower: Follower) -> FlopsTable:
    """Where the FLOPs of each pool that computes went."""

    def told(job: Job, plan: Plan) -> FlopsTable:
        work = pool_work(job, plan, calibrated(follower))
        pools = [pool for pool in typical_pools(follower) if pool.name in work and pool.mfu > 0]
        waterfalls = {pool.name: _waterfall(pool, work[pool.name].computing) for pool in pools}
        return FlopsTable(waterfalls, {name: one.whole_square for name, one in work.items()})

    return _by_job_and_plan(follower, told, lambda why: FlopsTable(missing=why))


def _by_job_and_plan(follower: Follower, make: Callable[[Job, Plan], Table], missing: Callable[[str], Table]) -> Table:
    """What job file and plan no longer say leaves the page without a table, not the user without a page."""
    if not typical_step_s(follower) or not follower.plan:
        return missing("No step of a plan was recorded.")
    if not follower.job:
        return missing("The run has no job file that can be read.")
    try:
        return make(recorded_job(follower.run_dir), follower.plan)
    except Exception as error:
        if not (explains_itself(error) or isinstance(error, NONSENSE)):
            raise
        return missing(f"The run's job file and plan cannot be judged: {render(error)}")


def _spent(pool: PoolStatus) -> PoolTime:
    """Medians of parts, made to sum to 1."""
    update = pool.optimizer or 0.0
    parts = pool.busy - update, update, pool.bubble, pool.bridge_wait, pool.other
    return PoolTime(*(part / sum(parts) for part in parts))


def _waterfall(pool: PoolStatus, computing: Computing) -> tuple[Term, ...] | str:
    computed = pool.busy - (pool.optimizer or 0.0)
    try:
        return waterfall(
            pool.mfu, TimeSpent(computed, pool.optimizer, pool.bubble, pool.bridge_wait, pool.other), computing
        )
    except (MonitorError, ArithmeticError) as error:
        return render(error)
