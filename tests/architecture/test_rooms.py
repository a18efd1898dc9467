"""What a room says of itself: what it lists is there, and it lists each of its files that is used from outside."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGES, ROOT, name_of, nodes, parsed, python_files

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


def _used_from_outside() -> dict[Path, set[str]]:
    """By room, its files from which others import."""
    found: dict[Path, set[str]] = {path.parent: set() for path in ROOMS}
    for path in python_files(*PACKAGES):
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = ROOT.joinpath(*node.module.split("."))
                files = [module, *(module / name.name for name in node.names)]
                for file in (file for file in files if file.with_suffix(".py").exists()):
                    if file.parent in found and file.parent not in path.parents:
                        found[file.parent].add(file.name)
    return found


USED = _used_from_outside()


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_a_room_names_what_is_used_from_outside(path: Path) -> None:
    words = set(re.findall(r"\w+", ast.get_docstring(parsed(path)) or ""))
    assert USED[path.parent] <= words


def test_what_is_used_from_outside_is_seen() -> None:
    assert {"store", "manifest"} <= USED[ROOT / "hetero" / "checkpoint"]
    assert "tensor_file" not in USED[ROOT / "hetero" / "checkpoint"], "of the room alone"
