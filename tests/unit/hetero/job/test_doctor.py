"""What a job asks of a host or a cluster: each need that is not met is told."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.probe import Detection
from hetero.cli.app import run
from hetero.cluster.doctor.finding import Finding
from hetero.cluster.doctor.machine import Space
from hetero.cluster.placement import Node
from hetero.job.doctor import examine_job, storage, taken
from hetero.job.file.load import load_job
from hetero.job.run.claim import Claim
from tests.architecture.tree import ROOT
from tests.unit.hetero.cluster.doctor.machines import GIB, GOOD

QUICKSTART = ROOT / "configs" / "runs" / "quickstart.yaml"
REAL = "pools.ascend={family: ascend, chip: Ascend-910B2, count: 4, tp: 4}"
FAMILIES = {"nvidia": "cuda", "ascend": "ascend", "kunlun": "kunlun"}
HOST = replace(GOOD, chips=[Detection("ascend", 4, ("/dev/davinci[0-9]*",))])


def examined(*settings: str, machine: Any = HOST, nodes: Any = None) -> dict[str, Finding]:
    job = load_job(QUICKSTART, settings)
    return {one.check: one for one in examine_job(job, machine, Path("runs"), nodes)}


def test_the_quickstart_needs_no_chips() -> None:
    findings = examined()
    assert {one.level for one in findings.values()} == {"ok"}
    assert {"plan", "pools.nvidia", "pools.ascend", "pools.kunlun", "data.source"} <= set(findings)


def test_chips_that_the_plan_leaves_idle_are_a_warning() -> None:
    told = examined("pools.nvidia.count=3")["plan, pools.nvidia"]
    assert (told.level, told.value, told.rule) == ("warning", "1 of 3 chips idle", "tp 2 does not divide 3")
    assert told.remedy == "use a tp of 1 there, or a count of 2"


def test_chips_of_a_family_are_shared_by_its_pools() -> None:
    assert examined(REAL)["pools.ascend"].level == "ok"
    few = examined(REAL, machine=replace(HOST, chips=[Detection("ascend", 3, ())]))["pools.ascend"]
    assert (few.level, few.value) == ("error", "3 chips of family ascend on this host")
    more = examined(REAL, "pools.kunlun={family: ascend, chip: Ascend-910B2, count: 2, tp: 1}")["pools.kunlun"]
    assert (more.level, more.rule) == ("error", "6 are needed by this pool and those above it")


@pytest.mark.parametrize(
    ("setting", "check"),
    [
        ("pools.nvidia.env.python=/opt/none/bin/python", "pools.nvidia.env.python"),
        ("pools.nvidia.interface=eth7", "pools.nvidia.interface"),
        ("data.source=/none/corpus", "data.source"),
        ("checkpoint={every: 2, storage: /proc/none}", "checkpoint.storage"),
    ],
)
def test_a_need_that_is_not_met(setting: str, check: str) -> None:
    finding = examined(setting)[check]
    assert finding.level == "error"
    assert finding.remedy


@pytest.mark.slow
def test_a_model_that_fits_no_plan() -> None:
    job = load_job(ROOT / "configs" / "runs" / "auto.yaml", ["model={preset: llama-70b}", "balance.choose=[]"])
    (finding,) = [one for one in examine_job(job, HOST, Path("runs")) if one.check == "plan"]
    assert finding.level == "error"
    assert finding.remedy


@pytest.mark.parametrize("key", ["monitor.port", "monitor.prometheus_port"])
def test_a_port_that_is_taken(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in examined(f"{key}={port}")[key].value
    assert examined(f"{key}={port}")[key].level == "ok"


def test_a_disk_that_is_too_small_for_the_checkpoints() -> None:
    assert storage(Space("/shared", 3 * GIB), 2 * GIB, elsewhere=False).level == "ok"
    assert storage(Space("/shared", 1 * GIB), 2 * GIB, elsewhere=False).level == "error"
    assert storage(Space("/shared", 1 * GIB), 2 * GIB, elsewhere=True).level == "warning"


def test_a_run_directory_that_a_run_writes(tmp_path: Path) -> None:
    assert list(taken(tmp_path)) == []
    claim = Claim.take(tmp_path, "--run-dir")
    (found,) = taken(tmp_path)
    assert (found.level, found.check) == ("error", "--run-dir")
    assert f"{tmp_path}: written by process {os.getpid()} on host" in found.value
    claim.release()


def test_a_cluster_is_asked_for_a_place() -> None:
    select = [f"pools.{pool}.select.labels.family={family}" for pool, family in FAMILIES.items()]
    nodes = [Node(pool, pool, {"family": family}, {"CPU": 64.0}) for pool, family in FAMILIES.items()]
    found = examined(*select, nodes=nodes)
    assert {found[f"pools.{pool}"].value for pool in FAMILIES} == {f"{pool}@0 on {pool}" for pool in FAMILIES}
    refused = examined(*select, nodes=nodes[:2])["pools.kunlun.select"]
    assert refused.level == "error"
    assert "fits on none of the cluster's 2 nodes" in refused.rule


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [[], ["--set", "pools.nvidia.interface=eth77"]])
def test_the_command_says_by_its_exit_code_what_blocks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, wrong: list[str]
) -> None:
    arguments = ["doctor", str(QUICKSTART), "--run-dir", str(tmp_path), *wrong]
    code = run([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 2 * told["blocks"]
    assert told["blocks"] is ("error" in {one["level"] for one in told["findings"]})
    assert run(arguments) == code
    shown = capsys.readouterr().out
    assert ("error: pools.nvidia.interface: name one of them" in shown) is bool(wrong)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("127.0.0.1:1", "http://127.0.0.1:1"):
        assert run(["doctor", str(QUICKSTART), "--address", address]) == 2
        assert "must answer there" in capsys.readouterr().out
