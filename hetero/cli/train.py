"""`hetero train`: run a job and show how it goes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli import streams
from hetero.cli.arguments import JobFile, Settings, path_of, path_there

if TYPE_CHECKING:
    from balancer.plan.plan import Plan
    from hetero.job.job import Job

MOST_PLAN_BYTES = 4 << 20


def train(
    job_file: JobFile,
    settings: Settings = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=path_of("--run-dir"), help="Where the run is recorded; default runs/NAME-TIME."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Join this Ray cluster, from one of its hosts.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="PLAN.json", parser=path_of("--plan"), help="Obey this plan.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_DIR[@STEP]", parser=path_there("--resume"), help="Continue from a checkpoint of another run."
        ),
    ] = None,
) -> None:
    """Train the job, on this machine unless --address names a cluster."""
    from hetero.interrupts import sigmask

    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):  # in the threads of libraries: Ray wants it in no other than this
        from hetero.cli.asking import asking
        from hetero.job.file.load import load_job, mistakes_located
        from hetero.job.planning.chips import identified
        from hetero.job.run.refusal import refuse_used
        from hetero.job.run.run_dir import new_run_dir
        from hetero.monitoring.journal import EVENTS

    job = load_job(job_file, settings or ())
    folder = run_dir or new_run_dir(job.name)
    refuse_used(folder)
    streams.last()
    try:
        with mistakes_located(job_file, settings or (), plan):
            job = identified(job, asking(address))
            given = _read_plan(plan) if plan else None
            _train_and_show(job, folder, address, given, resume)
    except KeyboardInterrupt:
        recorded = f"recorded in {folder}" if (folder / EVENTS).exists() else "nothing was recorded"
        typer.echo(f"interrupted; {recorded}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"recorded in {folder}")


def _train_and_show(job: Job, folder: Path, address: str | None, plan: Plan | None, resume: str | None) -> None:
    from hetero.cluster.options import named_pools
    from hetero.interrupts import held, sigmask
    from hetero.monitoring.dashboard.process import dashboard
    from hetero.monitoring.progress import Progress

    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):
        from hetero.training import train as run

    shown = Progress(job.train.steps, named_pools(job.pools).values())
    with held(), _no_questions(), dashboard(folder, job.monitor.port) as page, shown as progress:
        if page:
            typer.echo(f"dashboard on {page}")
        run(
            job, folder, address=address, plan=plan, resume=resume,
            on_record=progress.record, on_event=progress.event,
        )  # fmt: skip


@contextlib.contextmanager
def _no_questions() -> Iterator[None]:
    """A run reads nothing, and none of the libraries that it uses waits for somebody's answer at the terminal."""
    terminal = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        yield
    finally:
        os.dup2(terminal, 0)
        os.close(terminal)


def _read_plan(path: Path) -> Plan:
    from balancer.errors import PlanError
    from balancer.plan.plan import Plan
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
