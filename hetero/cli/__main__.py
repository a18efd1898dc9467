"""The `hetero` command as a process; `python -m hetero.cli` where its script is not installed, as in a cluster's job.

It listens to what asks it to end before it imports anything that takes time.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import NoReturn

from hetero.cli import streams
from hetero.interrupts import deafen, listen

FAILED = 1
LEAVING_S = 5.0
_MADE = 50_000
"""Objects more than there were before Python looks for garbage. At its own 700 a seventh of a command's start is spent
on what was just imported."""


def main() -> None:
    """Entry point of the console script. Leaves with 0 done, 2 the user's mistake, 1 a failure."""
    gc.set_threshold(_MADE)
    listen()
    streams.install()
    code = _run()
    deafen()
    _leave(code)


def _run() -> int:
    try:
        from hetero.cli.app import run

        return run()
    except KeyboardInterrupt:  # while it imported
        print("interrupted", file=sys.stderr)
        return FAILED


def _leave(code: int) -> NoReturn:
    """All is done and cleaned up: what a library's thread or hook at exit still waits for holds nobody for long."""
    last = threading.Timer(LEAVING_S, os._exit, [code])
    last.daemon = True
    last.start()
    sys.exit(code)


if __name__ == "__main__":
    main()
