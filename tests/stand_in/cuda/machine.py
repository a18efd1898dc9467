"""A machine with NVIDIA or Kunlun chips that are not there: `torch.cuda` over the CPU, and a plug-in that has a name.

Nothing of it reaches a process that is not given `environment`.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def environment(family: str) -> dict[str, str]:
    """What a process needs in its environment for two chips of `family`."""
    plugin = [str(HERE / "kunlun")] if family == "kunlun" else []
    return {"PYTHONPATH": os.pathsep.join([str(HERE / "site"), *plugin, str(ROOT)]), "OMP_NUM_THREADS": "1"}
