"""`hetero jobs`: what became of the jobs on a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import ServerAddress, path_of
from hetero.cli.submit import print_until_over
from hetero.terminal import plain, word

if TYPE_CHECKING:
    from hetero.cluster.jobs.jobs import JobView

JobId = Annotated[str, typer.Argument(metavar="JOB", help="As hetero submit named it.")]
PLAIN_WIDTH = 160
jobs = typer.Typer(name="jobs", help="Look after the jobs on a cluster.", no_args_is_help=True)


@jobs.command("list")
def list_(address: ServerAddress) -> None:
    """Every job, the newest first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hetero.cluster.jobs.jobs import JobServer

    table = Table(box=None, pad_edge=False)
    for column in ("job", "status", "started", "took", "run directory"):
        table.add_column(column, overflow="fold")
    for job in JobServer(address).jobs():
        table.add_row(*(Text(word(text)) for text in (job.id, job.state, *_times(job), job.run_dir)))
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table if table.row_count else "no jobs")


@jobs.command()
def status(job_id: JobId, address: ServerAddress) -> None:
    """What is known of one job."""
    from hetero.cluster.jobs.jobs import JobServer

    job = JobServer(address).job(job_id)
    started, took = _times(job)
    facts = {
        "job": job.id,
        "status": job.state,
        "started": started,
        "took": took,
        "run directory": job.run_dir,
    }
    if job.exit_code is not None:
        facts["exit code"] = str(job.exit_code)
    if job.message:
        facts["message"] = job.message
    for name, value in facts.items():
        typer.echo(f"{name:<14}{plain(value)}")


@jobs.command()
def logs(
    job_id: JobId,
    address: ServerAddress,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """What a job has printed."""
    from hetero.cluster.jobs.jobs import JobServer

    server = JobServer(address)
    if follow:
        raise typer.Exit(print_until_over(server, job_id))
    typer.echo(plain(server.logs(job_id)), nl=False)


@jobs.command()
def stop(job_id: JobId, address: ServerAddress) -> None:
    """End a job; when this returns its processes have ended."""
    from hetero.cluster.errors import ClusterError
    from hetero.cluster.jobs.jobs import JobServer

    job = JobServer(address).stop(job_id)
    if not job.is_over:
        raise ClusterError("JOB", job_id, "has been asked to stop and still runs", "look at it again in a moment")
    typer.echo(f"{job_id}: {job.state}")


@jobs.command()
def fetch(
    job_id: JobId,
    address: ServerAddress,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=path_of("--to"), help="Where to put it; default runs/JOB.")
    ] = None,
    most: Annotated[
        int,
        typer.Option(min=1, max=10_000, metavar="GIB", help="Refuse a run directory that unpacks to more than this."),
    ] = 1,
) -> None:
    """Copy a run directory to this machine, without checkpoints; more than once while the job runs, if you like."""
    from hetero.cluster.jobs.fetch import fetch as bring
    from hetero.cluster.jobs.jobs import JobServer

    folder = to or Path("runs") / job_id
    files = bring(JobServer(address), job_id, folder, most << 30)
    typer.echo(f"{len(files)} files in {folder}")


def _times(job: JobView) -> tuple[str, str]:
    """When it started, and how long it took or has been running."""
    if job.started is None:
        return "-", "-"
    seconds = (job.ended or time.time()) - job.started
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started))
    except (OverflowError, ValueError, OSError):
        started = f"{job.started:.0f}"
    return started, f"{seconds:.0f} s"
