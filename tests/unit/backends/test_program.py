"""Processes of ours take no file of the working folder for a module, and still find what the user's path names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backends.program import program

SAYS = "import bridge, sys\nprint(__name__, sys.argv[1:], [path for path in sys.path if not path])\n"
PYTHONS = [sys.executable, *filter(None, [shutil.which("python3.10")])]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_working_folder_is_no_place_for_modules(python: str, tmp_path: Path) -> None:
    working, named = tmp_path / "working", tmp_path / "named"
    for folder in (working, named):
        folder.mkdir()
    for module in ("types", "runpy", "bridge", "sitecustomize", "said"):
        (working / f"{module}.py").write_text("raise RuntimeError('of the working folder')")
    (named / "bridge.py").touch()
    (named / "said.py").write_text(SAYS)
    command = program("said", "--fd", "3", python=python)
    done = subprocess.run(
        command, cwd=working, env={**os.environ, "PYTHONPATH": str(named)}, capture_output=True, text=True
    )
    if "pyenv" in done.stderr:
        pytest.skip("python3.10 is only a name here")
    assert done.stdout == "__main__ ['--fd', '3'] []\n", done.stderr
