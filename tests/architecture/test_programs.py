"""Every process of ours is started in the one way that keeps the working folder out."""

from __future__ import annotations

import ast

from tests.architecture.tree import PACKAGES, name_of, nodes, python_files


def test_no_process_is_started_by_dash_m() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files(*PACKAGES)
        for node in nodes(path)
        if isinstance(node, ast.Constant) and node.value == "-m"
    ]
    assert not found, f"{found}: use backends.program"
