"""`hetero report`: a run as one page that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from hetero.cli.arguments import MaybeServerAddress, RunOrJob, path_of

if TYPE_CHECKING:
    from balancer.plan.plan import Plan
    from balancer.search.pool_ledger import PoolTime
    from hetero.job.job import Job
    from hetero.monitoring.follow import Follower
    from hetero.monitoring.report.page import FlopsTable, LedgerTable
    from hetero.monitoring.status import PoolStatus
    from hetero.monitoring.waterfall import Computing, Term

Table = TypeVar("Table")

NONSENSE = (ValueError, LookupError, TypeError, ArithmeticError)
"""What comes of figures that no run has written."""


def report(
    run: RunOrJob,
    address: MaybeServerAddress = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=path_of("--output"), help="Where the page is written; default RUN_DIR/report.html."
        ),
    ] = None,
) -> None:
    """Write one HTML page: loss, throughput, pools, ledger, plan, timeline and environment of a run.

    A job's run directory is brought to runs/JOB first, as by hetero jobs fetch."""
    from hetero.cli.watched import fetched
    from hetero.monitoring.errors import MonitorError
    from hetero.monitoring.follow import follow
    from hetero.monitoring.report.page import render
    from hetero.monitoring.timeline import last_timeline
    from hetero.private import private_files

    run_dir = fetched(run, address)
    follower = follow(run_dir)
    if not (follower.recent or follower.events):
        raise MonitorError("RUN_DIR", str(run_dir), "must hold a run", "give the folder that `hetero train` printed")
    page = render(follower, _ledger(follower), _flops(follower), last_timeline(run_dir / "trace.json"))
    path = output or run_dir / "report.html"
    with private_files() if output is None else nullcontext():
        _write(path, page)
    typer.echo(f"wrote {path}")


def _ledger(follower: Follower) -> LedgerTable:
    """By the job file and plan of the run."""
    from hetero.job.planning.judging import MeasuredRun, judge
    from hetero.monitoring.report.page import LedgerRow, LedgerTable
    from hetero.monitoring.status import (
        calibrated,
        probed,
        time_scale,
        typical_pools,
        typical_stages_s,
        typical_step_s,
        typical_waits_s,
    )

    def judged(job: Job, plan: Plan) -> LedgerTable:
        scale, found = time_scale(follower) or 1.0, (calibrated(follower), probed(follower))
        told = typical_stages_s(follower), scale, *found, typical_waits_s(follower)
        spent = {pool.name: _spent(pool) for pool in typical_pools(follower) if pool.busy > 0}
        judged = judge(job, plan, MeasuredRun(typical_step_s(follower) or 0.0, *told, spent))
        rows = [LedgerRow("efficiency against the ideal", judged.predicted_efficiency, judged.measured_efficiency)]
        rows += [
            LedgerRow(term.replace("_", " "), judged.predicted.get(term, 0.0), value)
            for term, value in judged.measured.items()
        ]
        return LedgerTable(rows, judged.source, judged.predicted_step_s, judged.measured_step_s, judged.pools)

    return _by_job_and_plan(follower, judged, lambda why: LedgerTable(missing=why))


def _spent(pool: PoolStatus) -> PoolTime:
    """Medians of parts, made to sum to 1."""
    from balancer.search.pool_ledger import PoolTime

    update = pool.optimizer or 0.0
    parts = pool.busy - update, update, pool.bubble, pool.bridge_wait, pool.other
    return PoolTime(*(part / sum(parts) for part in parts))


def _flops(follower: Follower) -> FlopsTable:
    """Where the FLOPs of each pool that computes went."""
    from hetero.job.planning.computing import pool_work
    from hetero.monitoring.report.page import FlopsTable
    from hetero.monitoring.status import calibrated, typical_pools

    def told(job: Job, plan: Plan) -> FlopsTable:
        work = pool_work(job, plan, calibrated(follower))
        pools = [pool for pool in typical_pools(follower) if pool.name in work and pool.mfu > 0]
        waterfalls = {pool.name: _waterfall(pool, work[pool.name].computing) for pool in pools}
        return FlopsTable(waterfalls, {name: one.whole_square for name, one in work.items()})

    return _by_job_and_plan(follower, told, lambda why: FlopsTable(missing=why))


def _by_job_and_plan(follower: Follower, make: Callable[[Job, Plan], Table], missing: Callable[[str], Table]) -> Table:
    """What job file and plan no longer say leaves the page without a table, not the user without a page."""
    from hetero.errors import explains_itself, render
    from hetero.job.file.load import recorded_job
    from hetero.monitoring.status import typical_step_s

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


def _waterfall(pool: PoolStatus, computing: Computing) -> tuple[Term, ...] | str:
    from hetero.errors import render
    from hetero.monitoring.errors import MonitorError
    from hetero.monitoring.waterfall import TimeSpent, waterfall

    computed = pool.busy - (pool.optimizer or 0.0)
    try:
        return waterfall(
            pool.mfu, TimeSpent(computed, pool.optimizer, pool.bubble, pool.bridge_wait, pool.other), computing
        )
    except (MonitorError, ArithmeticError) as error:
        return render(error)


def _write(path: Path, page: str) -> None:
    """Whole or not at all; into a pipe or device, and through a link, as any program writes."""
    from hetero.monitoring.errors import MonitorError

    try:
        if path.exists() and not path.is_file():
            path.write_text(page, encoding="utf-8")
        else:
            _replace(Path(os.path.realpath(path)), page)
    except OSError as error:
        raise MonitorError(
            "--output", str(path), f"must be writable ({error.strerror})", "choose another file"
        ) from None


def _replace(path: Path, page: str) -> None:
    half = path.with_name(path.name + ".part")
    try:
        half.write_text(page, encoding="utf-8")
        half.replace(path)
    except OSError:
        with suppress(OSError):
            half.unlink()
        raise
