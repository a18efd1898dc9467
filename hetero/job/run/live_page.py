"""The live page beside a run: a process of its own on a socket that the run's driver has bound.

The driver binds, so a port that is taken is an error before anything starts; after that nothing that befalls the server
touches the training. `python -m hetero.job.run.live_page` serves until its standard input ends, which it does when the
driver does, whatever killed it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from backends.program import program
from hetero.interrupts import ENDING
from hetero.monitoring.dashboard.address import listen, url
from hetero.monitoring.options import PortNumber

STOP_S = 5.0


@contextlib.contextmanager
def dashboard(run_dir: Path, port: PortNumber) -> Iterator[str | None]:
    """The address of a dashboard on `run_dir` that is served inside; None where no port is asked for.

    Raises MonitorError at `monitor.port` if the port is taken."""
    if port is None:
        yield None
        return
    with listen("127.0.0.1", port, key="monitor.port") as listener:
        address = url(listener)
        process = _start(run_dir, listener)
    try:
        yield address
    finally:
        _stop(process)


def _start(run_dir: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
    arguments = ["--run-dir", str(run_dir), "--fd", str(listener.fileno())]
    return subprocess.Popen(
        program("hetero.job.run.live_page", *arguments),
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is the driver's to answer
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _serve(run_dir: Path, listener: socket.socket) -> None:
    from hetero.job.judged import ledger_table
    from hetero.monitoring.dashboard.server import serve

    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await serve(run_dir, listener, stop, ledger_table, local_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves the dashboard of a run until standard input ends.")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run")
    parser.add_argument("--fd", type=int, required=True, help="a socket that listens")
    options = parser.parse_args()
    for number in ENDING:  # it ends when the driver does
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(sys.stdin.fileno(), False)
    with socket.socket(fileno=options.fd) as listener:
        asyncio.run(_serve(options.run_dir, listener))


if __name__ == "__main__":
    main()
