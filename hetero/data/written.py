"""What runs write, which is text of no source: known by what every run directory and every checkpoint holds."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from hetero.data.errors import DataError
from hetero.monitoring.journal import EVENTS
from hetero.paths import local

TOKENS = "tokens.bin"
CLAIM = re.compile(r"\.claim-(\d+)")
"""The file by which a run holds a folder."""
_RUN = frozenset({"job.yaml", EVENTS})
_UNFINISHED = re.compile(r"tokens\.\d+\.unfinished")
_PIECE = re.compile(r".+-\d+-[0-9a-f]{8}\.safetensors(\.tmp)?")


def unfinished_tokens(folder: Path) -> Path:
    """Where this process writes tokens until they are whole."""
    return folder / f"tokens.{os.getpid()}.unfinished"


def is_run_folder(names: Collection[str]) -> bool:
    """Whether a folder that holds `names` is a run directory or a checkpoint, or one that a run holds."""
    return set(names) >= _RUN or any(CLAIM.fullmatch(name) or _PIECE.fullmatch(name) for name in names)


def is_token_file(path: Path) -> bool:
    """Whether a file, or what a link leads to, is some run's tokens."""
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    if real.name == TOKENS:
        run_dir = Path(os.path.realpath(real.parent)).parent
        return all((run_dir / name).exists() for name in _RUN)
    return _UNFINISHED.fullmatch(real.name) is not None


def check_apart(source: str, folder: Path) -> None:
    """Raises DataError if a source folder is, or lies in, the `folder` that a run is about to write."""
    path, real = os.path.realpath(local(source, "data.source")), Path(os.path.realpath(folder))
    if os.path.isdir(path) and real in (Path(path), *Path(path).parents):
        rule = f"is or lies in {folder}, which this run writes"
        raise DataError("data.source", source, rule, "record the run elsewhere, or keep the text elsewhere")
