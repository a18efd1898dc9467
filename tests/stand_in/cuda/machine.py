"""A machine with NVIDIA or Kunlun chips that are not there: `torch.cuda` over the CPU, and a plug-in that has a name.

Nothing of it reaches a process that is not given `environment`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def environment(family: str) -> dict[str, str]:
    """What a process needs in its environment for two chips of `family`."""
    plugin = [str(HERE / "kunlun")] if family == "kunlun" else []
    return {"PYTHONPATH": os.pathsep.join([str(HERE / "site"), *plugin, str(ROOT)]), "OMP_NUM_THREADS": "1"}


def run(family: str, arguments: Sequence[str], timeout_s: float) -> str:
    """What Python with `arguments` prints on this machine. It is told if it fails."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_VISIBLE_DEVICES")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=inherited | environment(family), capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout
