"""Every process of ours is started in the one way that keeps the working folder out."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.tree import PACKAGES, name_of, nodes, python_files


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_no_process_is_started_by_dash_m(path) -> None:  # type: ignore[no-untyped-def]
    lines = [node.lineno for node in nodes(path) if isinstance(node, ast.Constant) and node.value == "-m"]
    assert not lines, f"{name_of(path)}:{lines}: use backends.program"
