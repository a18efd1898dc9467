"""What another user of this machine gets of a Ray of our own: nothing, and no answer but that he may not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import grpc
import psutil
import pytest
import requests

from tests.e2e.fake_run import FakeRun
from tests.e2e.listeners import listeners
from tests.patience import RUN_S, WAIT_S

ANOTHER = 12345
"""A user's number that has no process and no file."""
ORDERS = {
    "GcsService": "InternalKVGcsService/InternalKVKeys",
    "NodeManager": "NodeManagerService/GetNodeStats",
    "ObjectManager": "ObjectManagerService/Push",
    "CoreWorker": "CoreWorkerService/GetCoreWorkerStats",
}
"""Of each service of Ray's one call, which breaks nothing if it is heard."""
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
ASKED = ("/", "/api/version", "/api/job_agent/jobs/any/logs", "/logs")


@pytest.fixture
def session(fake_run: FakeRun) -> Path:
    """Ray's folder."""
    return fake_run.session


def ports(processes: list[psutil.Process]) -> dict[int, str]:
    """Those of Ray's at which somebody listens, and who."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            who = " ".join(process.cmdline())
            listening = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            found |= {one.laddr.port: who for one in listening}
    return found


def wait_for_the_agent(session: Path) -> None:
    """It listens once it has written down where."""
    until = time.monotonic() + RUN_S
    while not any(session.glob("runtime_env_agent_port_*")):
        assert time.monotonic() < until, "Ray's agent does not listen"
        time.sleep(0.2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_neither_reads_nor_moves_its_files(session: Path, tmp_path: Path) -> None:
    logs, sockets = session / "logs", session / "sockets"
    log = next(path for path in logs.iterdir() if path.is_file())
    precious = tmp_path / "precious"
    precious.write_text("ours")
    attempts = [
        ["ls", session],
        ["cat", log],
        ["mv", sockets, sockets.with_name("away")],
        ["ln", "-sf", precious, log],
        ["mv", session, session.with_name("away")],
        ["mv", session.parents[1], session.parents[1].with_name("away")],
    ]
    assert [attempt for attempt in attempts if succeeds_as_another(attempt)] == []


def test_its_sockets_with_a_path_lie_in_there(session: Path, fake_run: FakeRun) -> None:
    paths = [Path(one.address) for one in listeners(fake_run.processes()) if one.kind == "unix" and one.where == "path"]
    assert paths
    assert all(path.is_relative_to(session.parents[1]) for path in paths), paths


def test_without_the_token_nobody_is_heard(session: Path, fake_run: FakeRun) -> None:
    wait_for_the_agent(session)
    refused: set[str] = set()
    for port, who in ports(fake_run.processes()).items():
        if answer(port, "/") is None:
            codes = orders(port)
            assert set(codes.values()) <= REFUSED, f"{who} takes orders at {port}: {codes}"
            refused |= {kind for kind, code in codes.items() if code is grpc.StatusCode.UNAUTHENTICATED}
        else:
            assert {answer(port, path) for path in ASKED} == {401}, f"{who} answers at {port}"
    assert refused == set(ORDERS)


def test_it_is_no_more_of_ray_than_a_run_needs(fake_run: FakeRun) -> None:
    """Each would take a run half a second of its start, and listen."""
    running = [" ".join(process.cmdline()) for process in fake_run.processes()]
    assert any("raylet" in command for command in running)
    needless = ("ray/dashboard/dashboard.py", "ray/dashboard/agent.py", "DashboardAgent", "_private/monitor.py")
    assert not [command for command in running if any(one in command for one in needless)]


def orders(port: int) -> dict[str, grpc.StatusCode]:
    """What becomes of each order."""
    codes = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        for kind, name in ORDERS.items():
            try:
                channel.unary_unary(f"/ray.rpc.{name}", bytes, bytes)(b"", timeout=WAIT_S)
                codes[kind] = grpc.StatusCode.OK
            except grpc.RpcError as error:
                codes[kind] = error.code()
    return codes


def answer(port: int, path: str) -> int | None:
    """The status of an answer by HTTP; None where that is not spoken."""
    try:
        return requests.get(f"http://127.0.0.1:{port}{path}", timeout=WAIT_S).status_code
    except requests.RequestException:
        return None


def succeeds_as_another(command: list[str | Path]) -> bool:
    """Whether another user can do it, who has no rights but his own."""
    done = subprocess.run(command, user=ANOTHER, group=ANOTHER, extra_groups=[], capture_output=True, check=False)
    return done.returncode == 0
