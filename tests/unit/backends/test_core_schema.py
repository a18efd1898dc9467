from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backends.chip import parse_chip
from backends.core_schema import AmbiguousNumber, dump, load
from backends.errors import ChipError
from tests.architecture.tree import ROOT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100", 100),
        ("+5", 5),
        ("-5", -5),
        ("0", 0),
        ("0x10", 16),
        ("0o17", 15),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        *((text, text) for text in ("yes", "no", "On", "off", "y", "N")),
        *((text, text) for text in ("1:30", "1_000", "0b11", "2026-01-31", "2026-01-31 10:00:00", "=", "0x", "1.2.3")),
        ('"0100"', "0100"),
        ("{a: 0x10, no: [no, 1e3]}", {"a": 16, "no": ["no", 1000.0]}),
    ],
)
def test_a_value_is_what_a_person_reads(text: str, value: Any) -> None:
    assert (load(text), type(load(text))) == (value, type(value))


@pytest.mark.parametrize("text", ["0100", "-010", "00", "08", "[1, 007]", "!!int 0100"])
def test_leading_zeros_are_refused(text: str) -> None:
    with pytest.raises(AmbiguousNumber, match=r"line 2: .*octal to some"):
        load("#\n" + text)


def test_a_data_sheet_s_error_names_the_line() -> None:
    with pytest.raises(ChipError, match="line 2: 0100"):
        parse_chip("name: x\nmemory_gib: 0100\n", "x")


@pytest.mark.parametrize("text", ["!!int 1:30", "!!int 1_000", "!!float 1:30.5"])
def test_a_tag_does_not_bring_the_old_numbers_back(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        load(text)


DOUBTFUL = ["0100", "08", "1:30", "1_000", "1e-3", ".5", "yes", "no", "on", "y", "~", "", "null", "0o17", "2026-01-31"]


@pytest.mark.slow
@given(st.sampled_from(DOUBTFUL) | st.text(st.characters(codec="utf-8", exclude_categories=["C"])) | st.floats())
def test_what_is_written_is_read_alike_by_old_and_new_readers(value: str | float) -> None:
    text = dump({"key": value})
    for reader in (load, yaml.safe_load):
        found = reader(text)["key"]
        assert found == value or (value != value and found != found)
        assert type(found) is type(value)


def test_no_other_reader_of_yaml_is_in_use() -> None:
    other = re.compile(r"yaml\.(safe_load|safe_dump|load|dump|full_load|SafeLoader|SafeDumper)\b")
    packages = [ROOT / name for name in ("hetero", "balancer", "bridge", "backends")]
    files = [path for package in packages for path in package.rglob("*.py")]
    assert [path.name for path in files if other.search(path.read_text())] == ["core_schema.py"]
