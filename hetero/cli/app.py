"""The `hetero` command. What is slow to import (torch, Ray, the job's models) is imported when a command runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import typer

from hetero.cli import streams
from hetero.cli.align import align
from hetero.cli.checkpoint import checkpoint
from hetero.cli.dashboard import dashboard
from hetero.cli.data import data
from hetero.cli.doctor import doctor
from hetero.cli.jobs import jobs
from hetero.cli.plan import plan
from hetero.cli.profile import profile
from hetero.cli.replan import replan
from hetero.cli.report import report
from hetero.cli.submit import submit
from hetero.cli.top import top
from hetero.cli.train import train
from hetero.errors import exit_code, explains_itself, render

DONE, FAILED, MISTAKE = 0, 1, 2
INTERRUPTED = 130  # typer's word for a KeyboardInterrupt

app = typer.Typer(
    name="hetero",
    help="Train one model over chips of different vendors as if they were one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(plan)
app.command()(profile)
app.command()(train)
app.command()(submit)
app.add_typer(data)
app.add_typer(jobs)
app.command()(top)
app.command()(dashboard)
app.command()(replan)
app.command()(report)
app.add_typer(checkpoint)
app.command()(align)
app.command()(doctor)


def run(arguments: Sequence[str] | None = None) -> int:
    """Obey the arguments and return the exit code. Only errors that do not explain themselves show a traceback."""
    try:
        code = _obey(arguments)
        streams.flush()
        return code
    except Exception as error:
        if not explains_itself(error):
            raise
        if not getattr(error, "quiet", False):
            with contextlib.suppress(streams.StreamLost):
                print(render(error), file=sys.stderr)
        return exit_code(error)


def _obey(arguments: Sequence[str] | None) -> int:
    try:
        app(arguments)
    except SystemExit as end:  # how typer ends: 0, 2 for wrong arguments, which it explains, 1 for what a command told
        if end.code == INTERRUPTED:
            print("interrupted", file=sys.stderr)
        return int(end.code) if end.code in (DONE, MISTAKE) else FAILED
    return DONE
