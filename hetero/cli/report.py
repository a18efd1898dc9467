"""`hetero report`: a run as one page that needs nothing else."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import MaybeServerAddress, RunOrJob, path_of

if TYPE_CHECKING:
    from hetero.monitoring.follow import Follower
    from hetero.monitoring.report.page import LedgerTable

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
    page = render(follower, _ledger(follower), last_timeline(run_dir / "trace.json"))
    path = output or run_dir / "report.html"
    with private_files() if output is None else nullcontext():
        _write(path, page)
    typer.echo(f"wrote {path}")


def _ledger(follower: Follower) -> LedgerTable:
    """By the job file and plan of the run; what those no longer say leaves the page without a ledger, not the user
    without a page."""
    from hetero.errors import explains_itself, render
    from hetero.job.file.load import load_job
    from hetero.job.planning.judging import MeasuredRun, judge
    from hetero.monitoring.report.page import LedgerRow, LedgerTable
    from hetero.monitoring.status import calibrated, probed, time_scale, typical_stages_s, typical_step_s

    step_s = typical_step_s(follower)
    if not step_s or not follower.plan:
        return LedgerTable(missing="No step of a plan was recorded.")
    if not follower.job:
        return LedgerTable(missing="The run has no job file that can be read.")
    try:
        scale, found = time_scale(follower) or 1.0, (calibrated(follower), probed(follower))
        run = MeasuredRun(step_s, typical_stages_s(follower), scale, *found)
        judged = judge(load_job(follower.run_dir / "job.yaml"), follower.plan, run)
    except Exception as error:
        if not (explains_itself(error) or isinstance(error, NONSENSE)):
            raise
        return LedgerTable(missing=f"The run's job file and plan cannot be judged: {render(error)}")
    rows = [LedgerRow("efficiency against the ideal", judged.predicted_efficiency, judged.measured_efficiency)]
    rows += [
        LedgerRow(term.replace("_", " "), value, judged.measured[term]) for term, value in judged.predicted.items()
    ]
    return LedgerTable(rows, judged.source, judged.predicted_step_s, judged.measured_step_s)


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
