"""What the watcher does when its driver dies, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hetero.cluster.onray.reaper import MARK, Reaper, marked
from tests.patience import WAIT_S
from tests.unit.hetero.cluster.fleets import ROOT

DRIVER = """
import subprocess, sys, time
from pathlib import Path
from hetero.cluster.onray.reaper import MARK, Reaper
import os

mark, folder = sys.argv[1], Path(sys.argv[2])
reaper = Reaper(mark, folder)
left = subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: mark}, start_new_session=True)
print(left.pid, flush=True)
time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_after_kill_9_of_the_driver_neither_process_nor_folder_is_left(folder: Path) -> None:
    mark = f"test-{os.getpid()}"
    stranger = subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: mark + "-other"})
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, mark, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    left = int(driver.stdout.readline())
    driver.stdout.close()
    assert marked(mark) == [left]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    until = time.monotonic() + WAIT_S
    while (folder.exists() or marked(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists()
    assert marked(mark) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_after_a_goodbye_it_touches_nothing(folder: Path) -> None:
    reaper = Reaper("nobody", folder)
    reaper.dismiss()
    assert folder.exists()
