"""An interpreter for ranks alone: another torch than the driver's, and no Ray. Made once, below `.venv`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.other_torch.without_cuda import build

ROOT = Path(__file__).parents[2]
TORCH = "2.14.1"
PLACE = ROOT / ".venv" / f"torch-{TORCH}"
OURS = "numpy pydantic pyzmq cryptography safetensors pyyaml xxhash grpcio protobuf packaging"
TORCHS = "filelock typing_extensions sympy networkx jinja2 fsspec"
"""What ranks need, and what torch does but for CUDA."""


class CannotBeMade(Exception):
    """No such torch is to be had here; says why."""


def interpreter() -> Path:
    """Its path. Raises CannotBeMade."""
    python = PLACE / "bin" / "python"
    if not (PLACE / "whole").exists():
        pip = python, "-m", "pip", "install", "--quiet"
        _run(sys.executable, "-m", "venv", "--clear", PLACE)
        _run(*pip, "--no-deps", f"torch=={TORCH}")
        _run(*pip, "-c", ROOT / "constraints.txt", *OURS.split(), *TORCHS.split())
        (packages,) = PLACE.glob("lib/python3*/site-packages")
        (packages / "hetero.pth").write_text(f"{ROOT}\n")
        build(packages / "torch" / "lib")
        _run(python, "-c", "import torch")
        (PLACE / "whole").touch()
    return python


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise CannotBeMade(f"{command[-1]} took over ten minutes") from None
    if done.returncode:
        raise CannotBeMade(f"{command[-1]}: {done.stderr.strip()[-300:]}")
