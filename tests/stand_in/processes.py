"""Python on a machine with chips that are not there, and what its tests say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """What Python with `arguments` prints; all chips that there are it sees. What it prints is told if it fails."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_VISIBLE_DEVICES")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=inherited | dict(environment), capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def outcome(told: str) -> tuple[int, list[str]]:
    """How many tests passed, and why others were skipped, by what `pytest -rs` printed."""
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None
    return int(passed[1]), re.findall(r"^SKIPPED .*: (.*)$", told, re.MULTILINE)
