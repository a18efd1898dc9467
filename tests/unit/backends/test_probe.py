"""Detection on hosts that are made up: packages on the path, device files and tools that are claimed to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backends import probe
from backends.cuda import CudaBackend
from backends.errors import DeviceError
from backends.registry import process_environment


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A host without a sign of any chip."""
    monkeypatch.setattr(probe, "glob", lambda path: [])
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    monkeypatch.setattr(probe, "_has_module", lambda name: False)
    return monkeypatch


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages on the path of this process and of its children."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def names(findings: list[probe.Detection]) -> list[str]:
    return [finding.family for finding in findings]


def test_a_host_without_chips_is_a_cpu_and_starts_no_process(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(probe, "ask", lambda family: pytest.fail(f"asked for {family}"))
    findings = probe.detect()
    assert names(findings) == ["kunlun", "ascend", "cuda", "cpu"]
    assert [finding.chips > 0 for finding in findings] == [False, False, False, True]
    assert all(finding.problem for finding in findings[:-1])


def test_kunlun_comes_before_the_cuda_that_it_looks_like(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(probe, "glob", lambda path: [path] if path in ("/dev/xpu[0-9]*", "/dev/nvidiactl") else [])
    bare.setattr(probe, "ask", lambda family: probe.Detection(family, 8, ()))
    first = next(finding for finding in probe.detect() if finding.chips)
    assert (first.family, first.signs) == ("kunlun", ("/dev/xpu[0-9]*",))


def test_an_explicit_choice_comes_first_and_is_asked_without_a_sign(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(probe, "ask", lambda family: probe.Detection(family, 2, ()))
    findings = probe.detect("ascend")
    assert names(findings) == ["ascend", "kunlun", "cuda", "cpu"]
    assert findings[0].chips == 2


def test_an_unknown_choice_is_a_finding_and_no_exception(bare: pytest.MonkeyPatch) -> None:
    finding = probe.detect("ascent")[0]
    assert (finding.family, finding.chips) == ("ascent", 0)
    assert "Did you mean ascend?" in finding.problem


def test_a_probe_that_dies_or_hangs_is_a_finding(bare: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, "", "Segmentation fault in vendor code")

    def hangs(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("probe", 120)

    for run, complaint in ((dies, "Segmentation fault"), (hangs, "timed out")):
        bare.setattr(probe, "_run", run)
        finding = probe.detect("cuda")[0]
        assert finding.chips == 0
        assert complaint in finding.problem


def test_a_probe_that_no_signal_ends_is_not_waited_for(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    """As one that a driver holds in the kernel."""
    door = tmp_path / "door"
    held: list[subprocess.Popen[str]] = []
    os.mkfifo(door)
    bare.setattr(subprocess.Popen, "kill", lambda process: held.append(process))
    bare.setattr(probe, "program", lambda *_, **__: ["cat", str(door)])
    bare.setattr(probe, "_TIMEOUT_S", 0.05)
    assert "timed out" in probe.ask("cuda").problem
    (process,) = held
    assert process.poll() is None
    door.write_text("")
    with process:
        pass


@pytest.mark.slow
def test_a_broken_plugin_is_told_and_does_not_stop_torch(packages: Path) -> None:
    """torch_npu without CANN: autoloaded, it fails `import torch` itself; the family's environment prevents that."""
    (packages / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')\n")
    metadata = packages / "torch_npu-2.13.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    inherited = {key: value for key, value in os.environ.items() if key != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    autoloading = subprocess.run([sys.executable, "-c", "import torch"], env=inherited, capture_output=True, text=True)
    assert "Failed to load the backend extension: torch_npu" in autoloading.stderr

    finding = next(finding for finding in probe.detect() if finding.family == "ascend")
    assert "module torch_npu" in finding.signs
    assert finding.chips == 0
    assert "libhccl.so" in finding.problem
    assert process_environment("cpu")["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "0"


def test_kunlun_is_known_by_its_hook_and_keeps_cuda_away(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISABLE_XPYTORCH", raising=False)
    assert not probe.kunlun_hook()
    (packages / "torch_xmlir.py").touch()
    assert probe.kunlun_hook()
    with pytest.raises(DeviceError, match="drives Kunlun chips"):
        CudaBackend.load_module()
    monkeypatch.setenv("DISABLE_XPYTORCH", "1")
    assert not probe.kunlun_hook()
