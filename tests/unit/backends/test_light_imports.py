"""What the driver and the agents import must not load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = ("backends.chip", "backends.registry", "backends.options", "backends.emulation", "backends.probe")
HEAVY = ("torch", "ray", "hetero", "balancer", "bridge")


def loaded_by(*modules: str) -> list[str]:
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_specs_and_options_are_torch_free() -> None:
    assert loaded_by(*LIGHT) == []


@pytest.mark.slow
def test_families_load_torch_and_nothing_of_the_other_packages() -> None:
    assert loaded_by("backends.cuda", "backends.ascend", "backends.kunlun") == ["torch"]
