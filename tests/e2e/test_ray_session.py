"""A session over real Ray agents (and fake ranks): how it ends, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# argv: a folder for Ray's temporary folder, what the driver is to do at step 5.
DRIVER = """
import os, signal, sys, tempfile
import ray
from hetero.cluster.actors import RayAgents
from hetero.cluster.ray_runtime import ray_runtime
from hetero.cluster.reaper import MARK
from hetero.cluster.session import Session
from hetero.errors import render
from tests.unit.hetero.cluster.fleets import three_families

what = sys.argv[1]


def at_step(step, reports):
    if step == 5:
        if what == "agent":
            os.kill(agent_of("ascend@1"), signal.SIGKILL)
        elif what == "wait":
            print("running", flush=True)


def agent_of(host):
    endpoint = session.pids(host)["endpoint"]
    return int(open(f"/proc/{endpoint}/stat").read().rpartition(")")[2].split()[1])


def run():
    global session
    with ray_runtime():
        print("mark", os.environ[MARK], ray._private.worker._global_node.get_session_dir_path(), flush=True)
        with Session.start(three_families(), RayAgents()) as session:
            assert "torch" not in sys.modules
            session.configure({"epoch": 0, "step_s": 0.01})
            session.run(20 if what == "end" else 100000, at_step)


try:
    run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
except Exception as error:
    print("FAILED", repr(render(error)), flush=True)
print("over", flush=True)
"""


class Driver:
    def __init__(self, what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, what],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        _, self.mark, session_folder = self.read_until("mark").split()
        self.folder = Path(session_folder).parent

    def read_until(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith(word):
                return line
        raise AssertionError("".join(self.said))

    def has_left_something(self) -> list[str]:
        from hetero.cluster.reaper import marked

        left = [f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_text()}" for pid in marked(self.mark)]
        return left + ([f"folder {self.folder}"] if self.folder.exists() else [])


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.1)
    return held


def leaves_nothing(driver: Driver) -> bool:
    assert driver.process.stdout is not None
    driver.process.stdout.close()
    return within(15.0, lambda: not driver.has_left_something())


@pytest.fixture(autouse=True)
def _no_shared_memory_is_left() -> object:
    before = set(os.listdir("/dev/shm"))
    yield
    assert set(os.listdir("/dev/shm")) <= before


def test_a_run_to_its_end() -> None:
    driver = Driver("end")
    driver.read_until("over")
    assert driver.process.wait(20) == 0
    assert not driver.has_left_something()
    assert not any(line.startswith("FAILED") for line in driver.said)


def test_a_dead_agent_is_named() -> None:
    driver = Driver("agent")
    failed = driver.read_until("FAILED")
    assert "agent, host ascend@1" in failed
    driver.process.wait(20)
    assert leaves_nothing(driver)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda ending: ending.name)
def test_nothing_outlives_the_driver(ending: signal.Signals) -> None:
    driver = Driver("wait")
    driver.read_until("running")
    assert driver.folder.exists()
    os.killpg(driver.process.pid, ending)
    if ending is signal.SIGINT:
        driver.read_until("interrupted")
    driver.process.wait(20)
    assert leaves_nothing(driver)
