"""The catalogue of chips: every sheet loads, says where its figures come from, and is refused when it is wrong."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from backends.chip import GIB, chip_names, load_chip, parse_chip
from backends.errors import ChipError
from backends.registry import FAMILIES

PROMISED = {
    *("A100-80G", "A800-80G", "H800", "H100", "H200", "H20", "L40S", "RTX-4090"),
    *("Ascend-910A", "Ascend-910B1", "Ascend-910B2", "Ascend-910B3", "Ascend-910B4", "Ascend-910C"),
    *("Kunlun-R200", "Kunlun-P800", "cpu"),
}

SHEET = """
name: X1
family: cuda
peak_tflops:
  float32: {value: 20, tier: A, source: vendor}
  float16: {value: 80, tier: B, source: a project}
memory_gib: {value: 16, tier: A, source: vendor}
reserve_gib: {value: 0.5, tier: B, source: a project}
memory_gb_per_s: {value: 900, tier: A, source: vendor}
interconnect_gb_per_s: {value: 64, tier: A, source: vendor}
efficiency: {value: 0.5, tier: C, estimated: true, source: guess}
"""


def test_the_promised_chips_are_there() -> None:
    assert set(chip_names()) >= PROMISED


@pytest.mark.parametrize("name", chip_names())
def test_every_sheet_is_a_plausible_chip(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    assert chip.family in FAMILIES
    assert 0 < chip.flops_per_s("float32") < chip.peak_flops["float32"]
    assert chip.memory_bytes % GIB == 0
    assert 0 < chip.reserve_bytes < chip.memory_bytes / 6
    assert chip.usable_bytes == chip.memory_bytes - chip.reserve_bytes
    assert (chip.communicator_bytes > 0) == (chip.pair_communicator_bytes > 0) == (chip.family != "cpu")
    figures = {"memory_bytes", "reserve_bytes", "memory_bytes_per_s", "interconnect_bytes_per_s", "efficiency"}
    figures |= {"float8"}
    figures |= set() if chip.family == "cpu" else {"communicator_bytes", "pair_communicator_bytes"}
    figures |= {"exchange_peer_bytes"} if chip.exchange_peer_bytes else set()
    figures |= {"matrix_efficiency"} if chip.matrix_efficiency else set()
    figures |= {"device_names"} if chip.device_names else set()
    assert set(chip.provenance) == figures | {f"peak_flops.{precision}" for precision in chip.peak_flops}
    assert all(origin.source and (origin.tier != "C" or origin.estimated) for origin in chip.provenance.values())


def test_float8_is_a_fact_with_a_source_and_missing_where_nothing_is_said() -> None:
    assert not parse_chip(SHEET, "X1").float8
    chip = parse_chip(SHEET + "float8: {value: true, tier: A, source: vendor}", "X1")
    assert (chip.float8, chip.provenance["float8"].source) == (True, "vendor")
    assert {load_chip(name).family for name in chip_names() if load_chip(name).float8} == {"cuda", "cpu"}


def test_units_are_bytes_and_flops_and_one_direction_of_the_links() -> None:
    chip = parse_chip(SHEET, "X1")
    assert chip.peak_flops == {"float32": 20e12, "float16": 80e12}
    assert chip.flops_per_s("float16") == pytest.approx(40e12)
    assert (chip.memory_bytes, chip.usable_bytes, chip.memory_bytes_per_s) == (16 * GIB, 15.5 * GIB, 900e9)
    assert chip.interconnect_bytes_per_s == 32e9
    assert chip.estimated == ("efficiency",)


def test_a_lacking_precision_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(ChipError, match="float32, float16") as caught:
        load_chip("Ascend-910A").flops_per_s("bfloat16")
    assert (caught.value.key, caught.value.value) == ("precision", "bfloat16")


def test_an_unknown_chip_suggests_the_nearest() -> None:
    with pytest.raises(ChipError) as caught:
        load_chip("ascend-910b5")
    assert caught.value.remedy.startswith("Did you mean Ascend-910B")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  float32: {value: 20, tier: A, source: vendor}\n", "", "lacks float32"),
        ("estimated: true, ", "", "tier C must say"),
        ("value: 0.5", "value: 1.5", "fraction of the peak"),
        ("value: 16", "value: -1", "greater than 0"),
        ("value: 16", "value: 0.25", "reserve_gib is a part"),
        ("reserve_gib: {value: 0.5, tier: B, source: a project}\n", "", "reserve_gib"),
        ("family: cuda", "family: cuda\ncolour: red", "colour"),
        ("name: X1", "name: X2", r"Write `name: X1`"),
        ("name: X1", "name: [", "malformed"),
    ],
)
def test_a_wrong_sheet_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in SHEET
    with pytest.raises(ChipError, match=complaint):
        parse_chip(SHEET.replace(old, new), "X1")


def test_a_spec_is_a_value() -> None:
    chip = load_chip("H20")
    assert pickle.loads(pickle.dumps(chip)) == chip
    assert len({chip, load_chip("H20"), load_chip("H100")}) == 2


def test_the_catalogue_is_found_from_any_folder(tmp_path: Path) -> None:
    """Also beside someone else's package that is called configs."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    code = "from backends.chip import load_chip; print(load_chip('H100').family)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "cuda", done.stderr
