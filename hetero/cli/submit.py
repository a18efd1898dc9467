"""`hetero submit`: run a job on a cluster, from any machine that reaches its job server."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import JobFile, ServerAddress, Settings, path_there
from hetero.terminal import plain

if TYPE_CHECKING:
    from hetero.cluster.jobs.jobs import JobServer

PRINTED_S = 10.0
"""After its last line a job is over within so many seconds."""


def submit(
    job_file: JobFile,
    address: ServerAddress,
    settings: Settings = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print what the job prints; leave with its exit code.")
    ] = False,
    run_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=path_there("--run-dir"),
            help="Where the head records the run; default ~/hetero-runs/JOB.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_DIR[@STEP]", parser=path_there("--resume"), help="Continue from a checkpoint on the cluster."
        ),
    ] = None,
    python: Annotated[str, typer.Option(metavar="COMMAND", help="The interpreter on the cluster's head.")] = "python",
) -> None:
    """Hand in the job, with its local data and this version of hetero itself."""
    from hetero.cluster.doctor import guard
    from hetero.cluster.jobs.jobs import JobServer, shell_path
    from hetero.cluster.private_folder import passing_folder
    from hetero.job.file.load import load_job, mistakes_located
    from hetero.job.planning.plan_job import plan_job
    from hetero.job.run.parcel import JOB_FILE, pack

    job = load_job(job_file, settings or ())
    with mistakes_located(job_file, settings or ()):
        idle = [] if job.unidentified else plan_job(job).idle  # what no cluster could run fails here
    server = JobServer(address)
    id_ = _new_id(job.name)
    recorded = run_dir or f"~/hetero-runs/{id_}"
    command = f"{python} -m hetero.cli train {JOB_FILE} --address auto --run-dir {shell_path(recorded)}"
    if resume:
        command += f" --resume {shlex.quote(resume)}"
    with passing_folder() as folder:
        with mistakes_located(job_file, settings or ()):
            note = pack(job, folder)
        for warning in filter(None, (note, *map(str, idle), *guard.warnings(guard.of_server(server)))):
            typer.echo(f"warning: {warning}", err=True)
        server.submit(folder, command, id_=id_, name=job.name, run_dir=recorded)
    typer.echo(f"submitted {id_}, recorded on the cluster in {recorded}")
    if follow:
        raise typer.Exit(print_until_over(server, id_))


def print_until_over(server: JobServer, id_: str) -> int:
    """Prints what the job prints; the job's exit code once it is over. Ctrl-C leaves the job alone."""
    try:
        for piece in server.follow(id_):
            typer.echo(plain(piece), nl=False)
        job = server.wait(id_, PRINTED_S)
    except KeyboardInterrupt:
        print(f"\n{id_} goes on; hetero jobs stop {id_} ends it", file=sys.stderr)
        raise typer.Exit(1) from None
    typer.echo(f"{id_}: {job.state}")
    return job.code


def _new_id(name: str) -> str:
    """A name that Ray takes, and a part that makes it the only one."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "job"
    return f"{plain}-{secrets.token_hex(3)}"
