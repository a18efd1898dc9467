"""`hetero top`: a run in the terminal, while it goes on or afterwards."""

from __future__ import annotations

from typing import Annotated

import typer

from hetero.cli.arguments import MaybeServerAddress, RunOrJob


def top(
    run: RunOrJob,
    address: MaybeServerAddress = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and leave; what a pipe gets anyway.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks.")] = 1.0,
) -> None:
    """Show a run's loss, throughput and where each pool's time goes, until it ends."""
    from rich.console import Console

    from hetero.cli.watched import watched
    from hetero.monitoring.follow import follow
    from hetero.monitoring.status import status
    from hetero.monitoring.top import view, watch

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 110)
    with watched(run, address) as run_dir:
        follower = follow(run_dir)
        if once or not console.is_terminal:
            console.print(view(status(follower)))
            return
        try:
            watch(follower, console, every)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
