"""A driver with a Ray of our own, under way with hosts that train nothing: for what is asked of Ray and the driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.e2e.command import ROOT
from tests.patience import RUN_S

STEPS = 10
PATIENCE_S = 5.0
"""After so much silence a host or rank counts as dead."""
DRIVER = f"""
import ray

from hetero.cluster.onray.actors import RayAgents
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.session import Session
from tests.unit.hetero.cluster.fleets import three_families
from tests.unit.hetero.cluster.specs import epoch_spec

def main():
    patience = dict(agent_s={PATIENCE_S}, rank_s={PATIENCE_S})
    with ray_runtime(), Session.start(three_families(**patience), RayAgents()) as session:
        print("Ray in", ray._private.worker._global_node.get_session_dir_path(), flush=True)
        session.configure(epoch_spec(step_s=0.1))
        session.run(100_000, lambda step, _: print("step", step, flush=True))

main()
"""


class FakeRun:
    """The shell that it is started from has said that Ray may be open to everybody."""

    def __init__(self, place: Path) -> None:
        self._output = place / "output"
        surroundings = {**os.environ, "TMPDIR": str(place), "RAY_AUTH_MODE": "disabled"}
        with self._output.open("wb") as file:
            self.driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER], cwd=ROOT, env=surroundings,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def session(self) -> Path:
        """Ray's folder."""
        (found,) = re.findall("^Ray in (.*)", self._output.read_text(), re.MULTILINE)
        return Path(found)

    def processes(self) -> list[psutil.Process]:
        driver = psutil.Process(self.driver.pid)
        return [driver, *driver.children(recursive=True)]

    def wait_for_steps(self) -> None:
        """Until some more are done."""
        goal, until = self._steps() + STEPS, time.monotonic() + RUN_S
        while self._steps() < goal:
            assert self.driver.poll() is None, self._output.read_text()
            assert time.monotonic() < until, self._output.read_text()
            time.sleep(0.1)

    def end(self) -> None:
        self.driver.send_signal(signal.SIGCONT)
        self.driver.terminate()
        self.driver.wait(RUN_S)

    def _steps(self) -> int:
        return len(re.findall("^step", self._output.read_text(), re.MULTILINE))
