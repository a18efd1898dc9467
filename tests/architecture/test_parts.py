"""`make test` runs each test once, in one of its parts, and `make check` those of some folders."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, python_files

ELSEWHERE = "tests/device"
"""Needs a real chip."""
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def _runs(target: str) -> list[list[str]]:
    """The arguments of each pytest that a target would run."""
    command = ["make", "--dry-run", "--no-print-directory", "--old-file=install", target]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [shlex.split(line) for line in re.findall(r"-m pytest (.*)$", told, re.MULTILINE)]


def _files(arguments: list[str]) -> set[Path]:
    """What a pytest with these arguments collects."""
    ignored = {ROOT / argument.partition("=")[2] for argument in arguments if argument.startswith("--ignore=")}
    places = [ROOT / argument for argument in arguments if argument.startswith("tests")]
    assert all(place.exists() for place in (*places, *ignored)), arguments
    found = {path for place in places for path in ([place] if place.is_file() else place.rglob("test_*.py"))}
    return {path for path in found if not ignored & {path, *path.parents}}


def test_each_test_is_in_one_part() -> None:
    runs = _runs("test")
    assert len(runs) > 5
    assert {tuple(arguments[:2]) for arguments in runs} == {("-m", "not exhaustive")}
    every = {path for path in python_files("tests") if path.name.startswith("test_")}
    apart = {path for path in every if path.is_relative_to(ROOT / ELSEWHERE)}
    assert Counter(path for arguments in runs for path in _files(arguments)) == dict.fromkeys(every - apart, 1)


def test_the_fast_checks_overlap_nowhere() -> None:
    runs = _runs("check")
    assert {tuple(arguments[:2]) for arguments in runs} == {("-m", "not slow and not exhaustive")}
    found = Counter(path for arguments in runs for path in _files(arguments))
    assert set(found.values()) == {1}
    folders = ("architecture", "contract", "unit")
    assert set(found) == {
        path for folder in folders for path in python_files(f"tests/{folder}") if path.name[:5] == "test_"
    }
