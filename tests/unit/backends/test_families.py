"""Families by name, built in and from entry points, and what their processes need around them."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from backends import registry
from backends.cpu import CpuBackend
from backends.errors import FamilyError


class OutsideBackend(CpuBackend):
    family = "outside"


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A distribution that brings the family "outside"."""
    module = ModuleType("outside_chips")
    module.FAMILY = registry.Family("outside", f"{__name__}:OutsideBackend", ("OUTSIDE_DEVICES",))  # type: ignore[attr-defined]
    module.BROKEN = "not a family"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "outside_chips", module)
    entries = [
        EntryPoint(name, f"outside_chips:{attribute}", registry.ENTRY_POINT_GROUP)
        for name, attribute in (("outside", "FAMILY"), ("broken", "BROKEN"), ("missing", "NOTHING"))
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "hetero.backends" else [])
    return module


def test_the_four_families_are_built_in() -> None:
    assert set(registry.family_names()) >= {"cpu", "cuda", "ascend", "kunlun"}


def test_an_unknown_family_suggests_the_nearest() -> None:
    with pytest.raises(FamilyError) as caught:
        registry.load_backend("kunlunxin")
    assert caught.value.remedy == "Did you mean kunlun?"


def test_a_family_from_outside_is_used_like_the_others(outside: ModuleType) -> None:
    assert "outside" in registry.family_names()
    assert registry.load_backend("outside") is OutsideBackend
    assert registry.process_environment("outside", [3]) == {"OUTSIDE_DEVICES": "3"}


@pytest.mark.parametrize(("name", "complaint"), [("broken", "is no Family"), ("missing", "fails")])
def test_a_broken_entry_point_is_named(outside: ModuleType, name: str, complaint: str) -> None:
    with pytest.raises(FamilyError, match=complaint):
        registry.find_family(name)


def test_a_process_sees_only_its_chips() -> None:
    kunlun = registry.process_environment("kunlun", [2, 3])
    assert kunlun == {"XPU_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"}
    ascend = registry.process_environment("ascend", [0])
    assert ascend == {"ASCEND_RT_VISIBLE_DEVICES": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def test_a_process_of_the_cpu_sees_no_chip_of_any_family() -> None:
    environment = registry.process_environment("cpu", [0, 1])
    variables = {name for family in registry.FAMILIES.values() for name in family.visible_devices}
    assert {name: environment[name] for name in variables} == dict.fromkeys(variables, "")
    assert environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "0"
    assert environment["DISABLE_XPYTORCH"] == "1"


def test_without_a_choice_of_chips_visibility_is_left_alone() -> None:
    assert registry.process_environment("cuda") == {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
