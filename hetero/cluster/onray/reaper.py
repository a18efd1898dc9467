"""The watcher: `python -m hetero.cluster.onray.reaper --fd N --mark MARK --folder DIR`.

Outlives the driver, whatever kills it. If the driver's pipe ends without a goodbye, it ends every process that bears
the run's mark in its environment, and removes the run's temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from backends.program import program
from bridge.system.awake import AwakeClock
from hetero.interrupts import ENDING

MARK = "HETERO_RUN_MARK"
GRACE_S = 3.0
SWEEP_S = 10.0
_GOODBYE = b"goodbye"


class Reaper:
    """The driver's handle on its watcher. Linux only, where /proc tells what bears a mark; elsewhere only the folder is
    cleared."""

    def __init__(self, mark: str, folder: Path) -> None:
        self._pipe, theirs = socket.socketpair()
        arguments = ["--fd", str(theirs.fileno()), "--mark", mark, "--folder", str(folder)]
        with theirs:
            self._process = subprocess.Popen(
                program("hetero.cluster.onray.reaper", *arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def dismiss(self) -> None:
        """All is well: the driver has cleaned up itself."""
        with self._pipe, contextlib.suppress(OSError):
            self._pipe.sendall(_GOODBYE)
        self._process.wait()


def marked(mark: str) -> list[int]:
    """The processes, but this one, that were started with the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and wanted in _environment(pid)]


def sweep(mark: str, folder: Path, grace_s: float = GRACE_S) -> None:
    """Waits for marked processes to end by themselves, ends those that do not, and removes the folder."""
    clock = AwakeClock()
    while (left := marked(mark)) and clock.now() < SWEEP_S:
        if clock.now() >= grace_s:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _pids() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # it has ended, or is another user's


def main() -> None:
    parser = argparse.ArgumentParser(description="Cleans up after a driver that died.")
    parser.add_argument("--fd", type=int, required=True, help="the driver's pipe")
    parser.add_argument("--mark", required=True, help=f"value of {MARK} in the environment of the run's processes")
    parser.add_argument("--folder", type=Path, required=True, help="the run's temporary folder")
    options = parser.parse_args()
    for number in ENDING:  # it ends when the driver has
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=options.fd) as pipe:
        said = pipe.recv(len(_GOODBYE), socket.MSG_WAITALL)
    if said != _GOODBYE:
        sweep(options.mark, options.folder)


if __name__ == "__main__":
    main()
