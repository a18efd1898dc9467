from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from hetero.cli.app import run
from hetero.job.run.live_page import dashboard
from hetero.monitoring.dashboard.address import listen, url
from hetero.monitoring.errors import MonitorError
from tests.architecture.tree import ROOT
from tests.patience import WAIT_S

pytestmark = pytest.mark.slow
QUICKSTART = str(ROOT / "configs" / "runs" / "quickstart.yaml")


def _page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
        return str(answer.read().decode())


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(_page(address))
    return False


def _wait_until_silent(address: str, seconds: float = WAIT_S) -> None:
    until = time.monotonic() + seconds
    while _answers(address):
        assert time.monotonic() < until, "still served"
        time.sleep(0.1)


def test_no_port_serves_nothing(tmp_path: Path) -> None:
    with dashboard(tmp_path, None) as address:
        assert address is None


def test_a_run_is_served_while_it_lasts(tmp_path: Path) -> None:
    with dashboard(tmp_path / "not there yet", "auto") as address:
        assert address is not None
        assert address.startswith("http://127.0.0.1:")
        assert "<title>Hetero</title>" in _page(address)
    assert not _answers(address)


def test_a_taken_port_is_an_error_that_explains_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", "auto", key="x") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MonitorError) as caught, dashboard(tmp_path, port):
            pass
        assert (caught.value.key, caught.value.value) == ("monitor.port", f"127.0.0.1:{port}")
        assert run(["dashboard", str(tmp_path), "--port", str(port)]) == 2
        folder = tmp_path / "run"
        assert run(["train", QUICKSTART, "--run-dir", str(folder), "--set", f"monitor.port={port}"]) == 2
    shown = capsys.readouterr().err
    for part in ("--port", "monitor.port", str(port), "must be free to listen on", "auto"):
        assert part in shown
    assert not folder.exists(), "nothing half-written"


@pytest.mark.parametrize("port", ["0", "70000", "none", "-1"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(["train", QUICKSTART, "--run-dir", str(folder), "--set", f"monitor.port={port}"]) == 2
    assert "monitor.port" in capsys.readouterr().err
    assert not folder.exists()


def test_a_host_that_is_not_this_one_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", str(tmp_path), "--host", "192.0.2.1"]) == 2
    assert "give an address of this host" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", str(tmp_path / "none")]) == 2
    assert "RUN_DIR" in capsys.readouterr().err


def test_train_says_where_its_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = []

    def train(*_: Any, **__: Any) -> None:
        address = capsys.readouterr().out.partition("dashboard on ")[2].split()[0]
        served.append((address, _answers(address)))

    module = types.ModuleType("hetero.run")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hetero.run", module)
    assert run(["train", QUICKSTART, "--run-dir", str(tmp_path), "--set", "monitor.port=auto"]) == 0
    [(address, answered)] = served
    assert answered
    assert not _answers(address), "the page ends with the run"


def test_a_server_that_dies_is_nothing_to_the_run(tmp_path: Path) -> None:
    before = set(_children_of(os.getpid()))
    with dashboard(tmp_path, "auto") as address:
        assert address is not None
        assert _answers(address)
        (server,) = set(_children_of(os.getpid())) - before
        os.kill(server, signal.SIGKILL)
        _wait_until_silent(address)


def test_a_killed_driver_leaves_no_server(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from hetero.job.run.live_page import dashboard\n"
        "with dashboard(Path(sys.argv[1]), 'auto') as address: print(address, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        assert _answers(address)
        driver.kill()
    _wait_until_silent(address)


def test_ctrl_c_ends_the_command_well(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("hetero")), "dashboard", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert _answers(line.partition(" on ")[2].partition(" (")[0])
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


def test_addresses_are_what_a_browser_takes() -> None:
    with listen("127.0.0.1", "auto", key="x") as listener:
        assert url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listen("0.0.0.0", "auto", key="x") as listener:
        assert url(listener).startswith(f"http://{socket.gethostname()}:")


def _children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
