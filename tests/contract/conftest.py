"""Every chip family of the registry, and each of them emulated."""

from __future__ import annotations

import pytest

from backends.backend import Backend
from backends.chip import ChipSpec, chip_names, load_chip
from backends.emulation import Emulated, EmulateOptions
from backends.errors import DeviceError
from backends.registry import family_names, load_backend


def chips_of(family: str) -> list[ChipSpec]:
    return [chip for chip in map(load_chip, chip_names()) if chip.family == family]


@pytest.fixture(params=family_names())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["real", "emulated"])
def backend(request: pytest.FixtureRequest, family: str) -> Backend:
    """An open chip of the family; skips where it is not here."""
    inner = load_backend(family)
    emulate = request.param == "emulated"
    chip = Emulated(inner, chips_of(family)[0], EmulateOptions()) if emulate else inner()
    try:
        chip.open(0)
    except DeviceError as absent:
        pytest.skip(str(absent))
    return chip
