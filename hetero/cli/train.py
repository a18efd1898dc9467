"""`hetero train`: run a job and show how it goes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hetero.cli import streams
from hetero.cli.arguments import JobFile, Settings, path_of, path_there
from hetero.cli.heard import heard

if TYPE_CHECKING:
    from hetero.callbacks import RunStart
    from hetero.monitoring.metrics_line import MetricsLine
    from hetero.monitoring.progress import Progress


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
        from hetero.monitoring.journal import EVENTS
        from hetero.training import train as run

    try:
        with _Shown() as shown:
            run(
                job_file, set=settings or (), plan=plan, run_dir=run_dir, resume=resume, address=address,
                callbacks=[shown],
            )  # fmt: skip
    except KeyboardInterrupt:
        folder = shown.run_dir
        recorded = f"recorded in {folder}" if folder and (folder / EVENTS).exists() else "nothing was recorded"
        typer.echo(f"interrupted; {recorded}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"recorded in {shown.run_dir}")


class _Shown:
    """How a run goes, on the terminal; a context manager that follows it as a callback."""

    def __init__(self) -> None:
        self.run_dir: Path | None = None
        self._progress: Progress | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from hetero.interrupts import held

        with held():
            self._stack.__exit__(kind, error, trace)

    def on_start(self, start: RunStart) -> None:
        from hetero.cluster.options import named_pools
        from hetero.monitoring.progress import Progress

        self.run_dir = start.run_dir
        streams.last()
        self._stack.enter_context(_no_questions())
        if start.page:
            typer.echo(f"dashboard on {start.page}")
        pools = named_pools(start.job.pools).values()
        self._progress = self._stack.enter_context(Progress(start.job.train.steps, pools))

    def on_step(self, metrics: MetricsLine) -> None:
        assert self._progress is not None
        self._progress.record(metrics)

    def on_event(self, event: dict[str, Any]) -> None:
        if self._progress is None:  # while the pools' chips are asked what they are
            heard(event)
        else:
            self._progress.event(event)


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
