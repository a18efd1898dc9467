"""`hetero report`: a run as one page that needs nothing else."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from hetero.cli.arguments import MaybeServerAddress, RunOrJob, path_of


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
    from hetero.job.judged import flops_table, ledger_table
    from hetero.monitoring.errors import MonitorError
    from hetero.monitoring.follow import follow
    from hetero.monitoring.report.page import render
    from hetero.monitoring.timeline import last_timeline
    from hetero.private import private_files

    run_dir = fetched(run, address)
    follower = follow(run_dir)
    if not (follower.recent or follower.events):
        raise MonitorError("RUN_DIR", str(run_dir), "must hold a run", "give the folder that `hetero train` printed")
    page = render(follower, ledger_table(follower), flops_table(follower), last_timeline(run_dir / "trace.json"))
    path = output or run_dir / "report.html"
    with private_files() if output is None else nullcontext():
        _write(path, page)
    typer.echo(f"wrote {path}")


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
