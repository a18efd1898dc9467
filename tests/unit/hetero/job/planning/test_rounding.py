"""A plan says where frozen weights lose bits that their directory has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero.job.file.load import load_job
from hetero.job.planning.plan_job import plan_job
from hetero.models.registry import weights
from tests.architecture.tree import ROOT
from tests.tiny_models import tiny
from tests.unit.hetero.huggingface.written import write_folder

FROZEN = "train.freeze=[embedding*, units.1.*]"


def written(folder: Path, stored: torch.dtype) -> Path:
    model = tiny("mistral", vocab_size=300, num_hidden_layers=4)
    tensors = {name: torch.zeros(shape, dtype=stored) for name, shape in weights(model).foreign.items()}
    return write_folder(folder, tensors, dict(model.values))


def notes(folder: Path, precision: str, *settings: str) -> list[str]:
    common = f"model={{hf: {folder}, init: weights}}", f"train.precision={precision}", *settings
    planned = plan_job(load_job(ROOT / "configs" / "runs" / "quickstart.yaml", common))
    return [note for note in planned.notes if "frozen" in note]


def test_of_float32_weights_that_no_pool_computes_in(tmp_path: Path) -> None:
    (note,) = notes(written(tmp_path, torch.float32), "bfloat16", FROZEN)
    assert note.startswith("units.0.embedding.weight and 5 more are frozen")


@pytest.mark.parametrize(
    ("stored", "precision", "settings"),
    [
        (torch.float32, "float32", [FROZEN]),
        (torch.bfloat16, "bfloat16", [FROZEN]),
        (torch.float32, "bfloat16", []),
    ],
)
def test_of_others_nothing(stored: torch.dtype, precision: str, settings: list[str], tmp_path: Path) -> None:
    assert notes(written(tmp_path, stored), precision, *settings) == []


def test_of_weights_that_are_not_here_nothing(tmp_path: Path) -> None:
    (written(tmp_path, torch.float32) / "model.safetensors").unlink()
    assert notes(tmp_path, "bfloat16", FROZEN) == []
