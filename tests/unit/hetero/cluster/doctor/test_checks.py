"""Every check of a host says ok, warning or error where it must; the measurements behind them fail where they must."""

from __future__ import annotations

import resource
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.probe import Detection
from hetero.cluster.doctor.checks import examine
from hetero.cluster.doctor.finding import Finding, blocking
from hetero.cluster.doctor.machine import Space, home, measure, memfd_fault, own_address, space
from hetero.cluster.host.loopback import listen_fault
from tests.unit.hetero.cluster.doctor.machines import GIB, GOOD

BROKEN = Detection("ascend", 0, ("module torch_npu", "/dev/davinci[0-9]*"), "libhccl.so: cannot open")
UNUSED = Detection("cuda", 0, ("nvidia-smi",), "torch 2.13.0+cpu lacks CUDA")


def found(check: str, **changes: Any) -> Finding:
    (finding,) = [one for one in examine(replace(GOOD, **changes)) if one.check == check]
    return finding


def test_what_an_opened_chip_says_stands_beside_the_count() -> None:
    note = "copies are blocking: torch has no pinned memory"
    told = found("chips of kunlun", chips=[Detection("kunlun", 8, ("/dev/xpuctrl",), note=note)])
    assert (told.level, told.value) == ("ok", f"8; {note}")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("NVIDIA H200",), "8; they call themselves NVIDIA H200, which is H200"),
        (
            ("NVIDIA B200",),
            "8; they call themselves NVIDIA B200: no data sheet of family cuda bears the name that the chips give, "
            "so a job must name its chip",
        ),
    ],
)
def test_what_chips_call_themselves_and_what_a_job_takes_them_for(names: tuple[str, ...], told: str) -> None:
    assert found("chips of cuda", chips=[Detection("cuda", 8, ("/dev/nvidiactl",), names=names)]).value == told


def test_a_good_host() -> None:
    findings = examine(GOOD)
    assert {one.level for one in findings} == {"ok"}
    assert not any(one.remedy for one in findings)
    assert found("chips of ascend").value == "8, driver 24.1.0"
    assert found("torch-npu").value == "2.13.0"


@pytest.mark.parametrize(
    ("check", "level", "changes"),
    [
        ("python", "error", {"python": (3, 9, 18)}),
        ("torch", "error", {"packages": {"ray": "2.60.0"}}),
        ("ray", "error", {"packages": {"torch": "2.13.0", "ray": "2.9.0"}}),
        ("torch in use", "error", {"torch_fault": "libgomp.so.1: cannot open shared object file"}),
        (
            "torch-npu",
            "error",
            {"plugin_faults": {"torch-npu": ("goes with torch 2.13.0", "pip install torch==2.13.0")}},
        ),
        ("chips of ascend", "error", {"chips": [BROKEN]}),
        ("chips of cuda", "warning", {"chips": [UNUSED]}),
        ("/dev/shm", "warning", {"shared_memory": None}),
        ("/dev/shm", "warning", {"shared_memory": Space("/dev/shm", 64 * 1024**2)}),
        ("/dev/shm", "error", {"shared_memory": Space("/dev/shm", 8 * GIB, "Permission denied")}),
        ("memfd", "error", {"memfd_fault": "Cannot allocate memory"}),
        ("open files", "error", {"open_files": (256, 512)}),
        ("open files", "warning", {"open_files": (1024, 4096)}),
        ("locked memory", "warning", {"locked_memory": (8 * 1024**2, 8 * 1024**2)}),
        ("disk of runs", "error", {"run_dir": Space("runs", 100 * GIB, "Read-only file system")}),
        ("disk of runs", "error", {"run_dir": Space("runs", 1024**2)}),
        ("disk of runs", "warning", {"run_dir": Space("runs", 1 * GIB)}),
        ("loopback", "error", {"loopback_fault": "Network is unreachable"}),
        ("home", "warning", {"home": Space("~", 0, "no home is known for this user")}),
        ("home", "warning", {"home": Space("/root", 0, "Permission denied")}),
        ("network", "error", {"listen_fault": "Operation not permitted"}),
    ],
)
def test_what_is_wrong_is_found_with_rule_and_remedy(check: str, level: str, changes: dict[str, Any]) -> None:
    finding = found(check, **changes)
    assert finding.level == level, finding
    assert finding.value
    assert finding.rule
    assert finding.remedy
    assert blocking(examine(replace(GOOD, **changes))) is (level == "error")


def test_limits_that_do_not_matter() -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert found("open files", open_files=unlimited).level == "ok"
    assert found("locked memory", locked_memory=(8, 8), chips=[Detection("cpu", 2, ())]).level == "ok"


@pytest.mark.slow
def test_this_host_is_measured(tmp_path: Path) -> None:
    machine = measure(tmp_path / "not" / "there")
    assert machine.packages["torch"]
    assert {one.name for one in machine.required} >= {"torch", "ray", "pyzmq"}
    assert not machine.torch_fault
    assert not machine.run_dir.fault
    assert not list(tmp_path.iterdir())
    assert "lo" in machine.interfaces


def test_memory_that_cannot_be_had() -> None:
    assert memfd_fault(1024**2) == ""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert memfd_fault(1024**2) == "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert space(tmp_path / "new").fault == ""
    assert space(Path("/proc/run")).fault
    (tmp_path / "file").touch()
    assert space(tmp_path / "file" / "run").fault


def test_a_port_that_cannot_be_had() -> None:
    assert listen_fault(own_address()) == ""
    assert listen_fault("192.0.2.77")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in listen_fault("127.0.0.1", taken.getsockname()[1])


def test_a_proxy_is_shown_without_its_password() -> None:
    finding = found("proxy", proxies={"http_proxy": "http://proxy:3128", "no_proxy": "10.0.0.0/8"})
    assert (finding.level, finding.value) == ("ok", "http_proxy=http://proxy:3128, no_proxy=10.0.0.0/8")


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 5)
    assert "no home is known" in home().fault
    monkeypatch.setenv("HOME", "/proc/1/nothing")
    assert home().fault
