"""What a room says of itself: the files that it lists, and the names that are used from outside, are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGES, name_of, parsed, python_files

_ROW = re.compile(r"^(\w+)(?:\.(\w+))?/? {2,}\S", re.MULTILINE)
_NAME = re.compile(r"`([A-Za-z_]\w*)`")
ROOMS = [path for path in python_files(*PACKAGES) if path.name == "__init__.py"]


def _defined(room: Path) -> set[str]:
    """Names at the top of the room's files."""
    found = set()
    for path in room.rglob("*.py"):
        for node in parsed(path).body:
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    found.add(name)
                case ast.Assign(targets=targets):
                    found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
    return found


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_what_a_room_names_is_there(path: Path) -> None:
    text = ast.get_docstring(parsed(path)) or ""
    rows = _ROW.findall(text)
    there = {other.stem for other in path.parent.iterdir()}
    assert {file for file, _ in rows} <= there
    assert {name for _, name in rows if name} | set(_NAME.findall(text)) <= _defined(path.parent) | there
