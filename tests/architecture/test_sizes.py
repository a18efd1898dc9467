"""Files and functions stay small enough to hold in mind."""

from __future__ import annotations

import pytest

from tests.architecture.tree import PACKAGES, functions, name_of, python_files

MOST_LINES_IN_FILE = 500
MOST_LINES_IN_FUNCTION = 80
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "common", "core", "misc", "manager"}


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in python_files(*PACKAGES, "tests")}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES_IN_FILE}


@pytest.mark.parametrize("folders", [PACKAGES, pytest.param(("tests", "benchmarks"), marks=pytest.mark.slow)])
def test_functions_are_short(folders: tuple[str, ...]) -> None:
    long_enough = [path for path in python_files(*folders) if path.read_bytes().count(b"\n") >= MOST_LINES_IN_FUNCTION]
    found = [
        f"{name_of(path)}:{function.lineno} {function.name}"
        for path in long_enough
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > MOST_LINES_IN_FUNCTION
    ]
    assert not found, "\n".join(found)


def test_modules_have_telling_names() -> None:
    assert not [name_of(path) for path in python_files(*PACKAGES) if path.stem in NAMES_THAT_SAY_NOTHING]
