"""A driver that was stopped and goes on does not take for dead what it could not hear."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.e2e.fake_run import PATIENCE_S, FakeRun


@pytest.mark.parametrize(
    "everything", [pytest.param(False, id="driver"), pytest.param(True, id="all", marks=pytest.mark.exhaustive)]
)
def test_stopped_for_longer_than_its_patience(everything: bool, fake_run: FakeRun) -> None:
    stopped = [process.pid for process in fake_run.processes()] if everything else [fake_run.driver.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * PATIENCE_S)
    for pid in reversed(stopped):
        os.kill(pid, signal.SIGCONT)
    fake_run.wait_for_steps()
