"""How a module of ours is started as a process of its own."""

from __future__ import annotations

import sys

_ALONE = """\
import sys
sys.path[:1] = filter(None, sys.path[:1])
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""


def program(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Like `python -m module arguments`, which would however first look for every module in the working folder, where
    a user's file may have the name of one. `python -P` does the same from 3.11 on."""
    return [python, "-c", _ALONE, module, *arguments]
