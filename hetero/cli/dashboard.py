"""`hetero dashboard`: a run as a live web page, while it goes on or afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import MaybeServerAddress, RunOrJob

if TYPE_CHECKING:
    import socket
    from pathlib import Path


def dashboard(
    run: RunOrJob,
    address: MaybeServerAddress = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Listen here; a free one by default.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Listen on this address. Whoever reaches it can see the run.")
    ] = "127.0.0.1",
) -> None:
    """Serve a live web page of a run until Ctrl-C."""
    import asyncio

    from hetero.cli.watched import watched
    from hetero.monitoring.dashboard.address import listen, url

    with watched(run, address) as run_dir, listen(host, port or "auto", key="--port") as listener:
        typer.echo(f"dashboard of {run} on {url(listener)} (Ctrl-C ends it)")
        asyncio.run(_serve(run_dir, listener))


async def _serve(run_dir: Path, listener: socket.socket) -> None:
    import asyncio

    from hetero.interrupts import answered
    from hetero.job.judged import ledger_table
    from hetero.monitoring.dashboard.address import is_loopback
    from hetero.monitoring.dashboard.server import serve

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    with answered(lambda: loop.call_soon_threadsafe(stop.set)):
        await serve(run_dir, listener, stop, ledger_table, local_only=is_loopback(listener.getsockname()[0]))
