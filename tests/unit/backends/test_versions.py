"""Which torch goes with which torch_npu is told from what is installed; nothing of it is imported."""

from __future__ import annotations

import sys
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement

from backends import versions
from backends.ascend import AscendBackend
from backends.errors import DeviceError
from tests.architecture.tree import ROOT

CPU, CUDA = "cuda: Optional[str] = None\nhip = None\n", "cuda: Optional[str] = '13.0'\n"


def told(monkeypatch: pytest.MonkeyPatch, torch: str, plugin: str, file: str = CPU) -> str:
    there = {"torch": torch, "torch-npu": plugin}
    monkeypatch.setattr(versions, "version", there.__getitem__)
    monkeypatch.setattr(versions, "_version_file", lambda: file)
    return versions.ascend_pair_fault()


@pytest.mark.parametrize(
    ("torch", "plugin"), [("2.13.0+cpu", "2.13.0"), ("2.12.0", "2.12.0.post3"), ("2.7.1+cpu", "2.7.1.post11")]
)
def test_a_plugin_goes_with_the_torch_of_its_release(monkeypatch: pytest.MonkeyPatch, torch: str, plugin: str) -> None:
    assert told(monkeypatch, torch, plugin) == ""


@pytest.mark.parametrize(
    ("torch", "plugin", "file", "fault"),
    [
        ("2.14.1", "2.13.0", CPU, "goes with torch 2.13.0, and torch 2.14.1"),
        ("2.13.1+cpu", "2.13.0", CPU, "goes with torch 2.13.0"),
        ("2.14.0", "2.14.0", CUDA, "CUDA 13.0"),
    ],
)
def test_a_pair_that_would_abort_the_process_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, torch: str, plugin: str, file: str, fault: str
) -> None:
    assert fault in told(monkeypatch, torch, plugin, file)
    assert "download.pytorch.org/whl/cpu" in versions.ascend_pair_remedy()
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(DeviceError) as refused:
        AscendBackend.load_module()
    assert fault in refused.value.rule


def test_what_is_asked_for_is_a_pair() -> None:
    """By setup.cfg, by constraints.txt, and as docs/hardware.md and the doctor say."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options = setup["options.extras_require"]["ascend"].split()
    pins = {one.name: str(one.specifier) for one in map(Requirement, options)}
    assert pins["torch"] == pins["torch-npu"] == "==2.13.0"
    constraints = (ROOT / "constraints.txt").read_text().split()
    assert {f"{name}{pin}" for name, pin in pins.items()} <= set(constraints)
    page = (ROOT / "docs" / "hardware.md").read_text()
    assert all(f"{name}{pin}" in page for name, pin in pins.items())
    assert "torch>=2.5" in setup["options"]["install_requires"].split(), "attention has enable_gqa"
    assert "torch 2.5" in page
