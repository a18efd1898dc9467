"""From what a chip calls itself to its data sheet."""

from __future__ import annotations

from collections import Counter

import pytest

from backends.chip import chip_names, load_chip
from backends.errors import ChipError
from backends.identify import identify, only_chip


def test_every_name_is_of_one_chip() -> None:
    names = Counter(
        (chip.family, name.casefold()) for chip in map(load_chip, chip_names()) for name in chip.device_names
    )
    assert set(names.values()) == {1}


@pytest.mark.parametrize(
    ("family", "names", "chip"),
    [
        ("cuda", ["NVIDIA H200"], "H200"),
        ("cuda", ["NVIDIA A100-SXM4-80GB", "nvidia a100-sxm4-80gb "], "A100-80G"),
        ("cuda", ["NVIDIA H20"], "H20"),
        ("ascend", ["Ascend910B2"] * 8, "Ascend-910B2"),
        ("ascend", ["Ascend910_9391"], "Ascend-910C"),
    ],
)
def test_known_names(family: str, names: list[str], chip: str) -> None:
    assert identify(family, names) == chip


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("cuda", "NVIDIA A100-SXM4-40GB"),  # half the memory of the sheet with nearly this name
        ("cuda", "NVIDIA H100 PCIe"),
        ("cuda", "Ascend910B2"),
        ("kunlun", "GPU"),  # what torch_xmlir calls all of them
    ],
)
def test_an_unknown_name_is_told_with_the_sheets_that_there_are(family: str, name: str) -> None:
    with pytest.raises(ChipError) as raised:
        identify(family, [name])
    assert name in str(raised.value.value)
    assert raised.value.key == "chip"
    for chip in map(load_chip, chip_names()):
        assert (chip.name in raised.value.remedy) == (chip.family == family)


def test_unequal_chips_are_no_pool() -> None:
    with pytest.raises(ChipError, match="a pool is of equal chips, and these are H20 and L40S"):
        identify("cuda", ["NVIDIA L40S", "NVIDIA H20"])


def test_silence_is_no_name() -> None:
    with pytest.raises(ChipError, match="nothing"):
        identify("cuda", [])


def test_only_a_family_of_one_needs_no_name() -> None:
    assert only_chip("cpu") == "cpu"
    assert only_chip("cuda") is None
    assert only_chip("none") is None
