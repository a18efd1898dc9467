"""What Ray is kept from starting. Nothing is started here; tests/e2e/test_strangers.py sees what a Ray runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ray import _raylet
from ray._private import services, utils
from ray._private.node import Node

from hetero.cluster.onray.daemons import few_daemons

Command = list[str]
PORTS = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")


def raylet(folder: Path) -> Command:
    agent = ["python", "-u", "/ray/dashboard/agent.py", "--node-id=ab12", f"--session-dir={folder}", "--minimal"]
    return ["raylet", f"--session_dir={folder}", f"--dashboard_agent_command={subprocess.list2cmdline(agent)}"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Command, str]]:
    """What would have been started, and as what."""
    started: list[tuple[Command, str]] = []
    monkeypatch.setattr(services, "start_ray_process", lambda command, kind: started.append((command, kind)))
    return started


@pytest.mark.parametrize("name", ["session", "a session"])
def test_a_raylet_has_no_agent_and_waits_for_none(
    name: str, started: list[tuple[Command, str]], tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with few_daemons():
        services.start_ray_process(raylet(folder), "raylet")
    assert started == [(["raylet", f"--session_dir={folder}", "--dashboard_agent_command=sleep infinity"], "raylet")]
    for port in PORTS:
        found = _raylet.wait_for_persisted_port(str(folder), "ab12", getattr(_raylet, port), 1000, 10)
        assert found == -1, port


def test_of_what_else_it_starts_nothing_changes(started: list[tuple[Command, str]], tmp_path: Path) -> None:
    command = ["gcs_server", "--log_dir=/tmp"]
    with few_daemons():
        services.start_ray_process(command, "gcs_server")
    services.start_ray_process(raylet(tmp_path), "raylet")
    assert started == [(command, "gcs_server"), (raylet(tmp_path), "raylet")]


def test_a_ray_whose_raylet_waits_otherwise_keeps_its_agent(
    started: list[tuple[Command, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(_raylet, "persist_port")
    with few_daemons():
        services.start_ray_process(raylet(tmp_path), "raylet")
    assert started == [(raylet(tmp_path), "raylet")]


@pytest.mark.parametrize("missing", ["--node-id", "--session-dir"])
def test_an_agent_that_is_told_otherwise_stays(
    missing: str, started: list[tuple[Command, str]], tmp_path: Path
) -> None:
    command = [part.replace(f"{missing}=", f"{missing} ") for part in raylet(tmp_path)]
    with few_daemons():
        services.start_ray_process(command, "raylet")
    assert started == [(command, "raylet")]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Node, "start_api_server"), (Node, "start_monitor"), (utils, "get_dashboard_dependency_error")],
    ids=["job server", "autoscaler", "what they need"],
)
def test_what_else_is_left_out(owner: object, name: str) -> None:
    real = getattr(owner, name)
    with few_daemons():
        assert getattr(owner, name) is not real
    assert getattr(owner, name) is real
