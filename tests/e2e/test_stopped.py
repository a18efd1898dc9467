"""A driver that was stopped and goes on does not take for dead what it could not hear."""

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

STOPPED_S = 4.0
STEPS = 10
DRIVER = """
from hetero.cluster.onray.actors import RayAgents
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.session import Session
from tests.unit.hetero.cluster.fleets import three_families
from tests.unit.hetero.cluster.specs import epoch_spec

def main():
    with ray_runtime(), Session.start(three_families(agent_s=2.5, rank_s=2.0), RayAgents()) as session:
        session.configure(epoch_spec(step_s=0.1))
        session.run(100_000, lambda step, _: print("step", step, flush=True))

main()
"""


def _wait_for_steps(driver: subprocess.Popen[bytes], output: Path) -> None:
    """Waits until some more steps are done."""

    def done() -> int:
        return len(re.findall("^step", output.read_text(), re.MULTILINE))

    goal, until = done() + STEPS, time.monotonic() + RUN_S
    while done() < goal:
        assert driver.poll() is None, output.read_text()
        assert time.monotonic() < until, output.read_text()
        time.sleep(0.1)


def test_the_driver_alone_and_then_everything_is_stopped_for_longer_than_its_patience(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        for everything in (False, True):
            _wait_for_steps(driver, output)
            stopped = [driver.pid]
            if everything:
                stopped += [process.pid for process in psutil.Process(driver.pid).children(recursive=True)]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
        _wait_for_steps(driver, output)
    finally:
        driver.send_signal(signal.SIGCONT)
        driver.terminate()
        driver.wait(RUN_S)
