"""Every YAML file that is shipped is loaded by the code that reads its kind, and every folder is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.chip import load_chip
from hetero.job.load import load_job
from hetero.models.options import ModelOptions
from tests.architecture.tree import ROOT

CONFIGS = ROOT / "configs"
READERS = {
    "chips": lambda path: load_chip(path.stem),
    "models": lambda path: ModelOptions(preset=path.stem).resolve(),
    "runs": load_job,
}
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_file_loads(path: Path) -> None:
    assert READERS[path.parent.name](path) is not None


def test_configs_hold_yaml_alone_and_every_kind() -> None:
    files = {path for path in CONFIGS.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == set(FILES)
    assert {path.parent.name for path in files} == set(READERS)
