"""A mixed run with hundreds of strangers of every kind at every port of its endpoints: it ends as it would without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.contract import strangers
from tests.e2e.command import ROOT, Command, Run, short_folder
from tests.patience import RUN_S

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
STEPS, EACH = 20, 150
JOB = ROOT / "configs/runs/quickstart.yaml"


def losses(place: Path, *, crowded: bool) -> list[float]:
    run = Run(place / f"run-{crowded}")
    crowds: list[subprocess.Popen[bytes]] = []
    arguments = ["train", JOB, "--set", f"train.steps={STEPS}", "--run-dir", run.folder]
    try:
        with Command(place, *arguments) as command:
            run.wait_for_steps(2, command, RUN_S)
            crowds += [crowd for address in ports(run) for crowd in gather(address)] if crowded else []
            assert command.wait(RUN_S) == 0, command.output
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.wait()
    assert crowded == any(event["kind"] == "stranger_refused" for event in run.events)
    return [step["loss"] for step in run.metrics]


def ports(run: Run) -> list[str]:
    """Where the run's endpoints listen; whether by ZeroMQ or gRPC is for strangers to try."""
    endpoints = [pid for name, pid in run.pids().items() if name.endswith("endpoint")]
    return [
        f"{one.laddr.ip}:{one.laddr.port}"
        for pid in endpoints
        for one in psutil.Process(pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]


def gather(address: str) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.contract.strangers"]
    kinds = [(scheme, kind) for scheme, kinds in strangers.BY_SCHEME.items() for kind in kinds]
    return [
        subprocess.Popen([*command, kind, f"{scheme}://{address}", str(EACH // len(kinds))], cwd=ROOT)
        for scheme, kind in kinds
    ]


def test_a_mixed_run_ends_as_it_would_without_strangers() -> None:
    with short_folder() as place:
        assert losses(place, crowded=True) == losses(place, crowded=False)
