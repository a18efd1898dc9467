"""`hetero` as a user runs it: the console script, with a home and a temporary folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hetero.monitoring.journal import EVENTS, METRICS, read
from tests.e2e.footprint import MARK, Footprint

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("hetero")


class Command:
    """One run of the script, which starts at once and is killed at the end of the `with` block if it still runs.

    Its output goes to a file: the end of a pipe would have to wait for whatever the run leaves behind."""

    def __init__(self, place: Path, *arguments: str | Path, cwd: Path = ROOT) -> None:
        folders = [place / name for name in ("home", "tmp")]
        for folder in [*folders, place / "cache"]:
            folder.mkdir(exist_ok=True)
        mark = secrets.token_hex(8)
        self.footprint = Footprint(mark, folders)
        self._output = place / f"output-{mark}"
        surroundings = {"HOME": folders[0], "TMPDIR": folders[1], "XDG_CACHE_HOME": place / "cache", MARK: mark}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [SCRIPT, *arguments],
                cwd=cwd,
                env={**os.environ, **{name: str(value) for name, value in surroundings.items()}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait(self, seconds: float) -> int:
        """Its exit code, if it ends within so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s\n{self.output}") from None


class Run:
    """A run directory, read while or after the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return list(read(self.folder / METRICS))

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(read(self.folder / EVENTS))

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def pids(self) -> dict[str, int]:
        """Of ranks by name, and of endpoints and fork servers by host: `ascend:0`, `ascend@0 endpoint`."""
        ready = [event["data"] for event in self.events if event["kind"] == "host_ready"]
        return {
            name if ":" in name else f"{data['host']} {name}": pid
            for data in ready
            for name, pid in data["pids"].items()
        }

    def wait_for_steps(self, count: int, command: Command, seconds: float) -> None:
        until = time.monotonic() + seconds
        while len(self.metrics) < count:
            assert command.process.poll() is None, command.output
            assert time.monotonic() < until, f"no {count} steps after {seconds:g} s\n{command.output}"
            time.sleep(0.1)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for the sockets that Ray makes below it."""
    folder = Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
