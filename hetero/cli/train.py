"""`hetero train`: run a job and show how it goes."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import JobFile, Settings

if TYPE_CHECKING:
    from balancer.plan import Plan
    from hetero.job.job import Job

MOST_PLAN_BYTES = 4 << 20


def train(
    job_file: JobFile,
    settings: Settings = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run is recorded; default runs/NAME-TIME.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Join this Ray cluster, from one of its hosts.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(metavar="PLAN.json", help="Obey this plan.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_DIR[@STEP]", help="Continue from a checkpoint of another run.")
    ] = None,
) -> None:
    """Train the job, on this machine unless --address names a cluster."""
    from hetero.job.load import load_job, mistakes_located

    job = load_job(job_file, settings or ())
    folder = _run_dir(job, run_dir)
    try:
        with mistakes_located(job_file, settings or (), plan):
            given = _read_plan(plan) if plan else None
            _train_and_show(job, folder, address, given, resume)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        typer.echo(f"interrupted; recorded in {folder}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"recorded in {folder}")


def _train_and_show(job: Job, folder: Path, address: str | None, plan: Plan | None, resume: str | None) -> None:
    from hetero.job.planning import pool_labels
    from hetero.monitoring.dashboard.process import dashboard
    from hetero.monitoring.progress import Progress
    from hetero.train import train as run

    with dashboard(folder, job.monitor.port) as page, Progress(job.train.steps, pool_labels(job)) as progress:
        if page:
            typer.echo(f"dashboard on {page}")
        run(
            job, folder, address=address, plan=plan, resume=resume,
            on_record=progress.record, on_event=progress.event,
        )  # fmt: skip


def _run_dir(job: Job, wanted: Path | None) -> Path:
    """The folder of the run, which holds no other run."""
    from hetero.job.errors import JobError
    from hetero.monitoring.journal import EVENTS, METRICS

    folder = wanted or _new_run_dir(job.name)
    if any(os.path.lexists(folder / name) for name in (METRICS, EVENTS, "job.yaml")):
        remedy = f"choose another; --resume {folder} continues that run in a new one"
        raise JobError("--run-dir", str(folder), "holds a run already, and no run overwrites another", remedy)
    return folder


def _new_run_dir(name: str) -> Path:
    """Two runs that start within one second have two."""
    plain = re.sub(r"[/\0]", "-", name)[:100]
    return Path("runs") / f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _read_plan(path: Path) -> Plan:
    from balancer.errors import PlanError
    from balancer.plan import Plan
    from hetero.job.errors import JobError

    try:
        with path.open("rb") as file:
            data = file.read(MOST_PLAN_BYTES + 1)
        if len(data) > MOST_PLAN_BYTES:
            rule = f"must be at most {MOST_PLAN_BYTES >> 20} MiB"
            raise JobError("--plan", str(path), rule, "check the path: is this a plan.json?")
        return Plan.from_json(data.decode("utf-8"))
    except OSError as error:
        raise JobError("--plan", str(path), f"must be a readable file ({error.strerror})", "check the path") from None
    except ValueError as error:
        raise JobError("--plan", str(path), f"must be UTF-8 text ({error})", "give a plan.json") from None
    except PlanError as error:
        if error.key != "plan":
            raise
        raise JobError("--plan", str(path), error.rule, "give a plan.json") from None
