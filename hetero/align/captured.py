"""Gradients that the owners of a plan captured (`Capture` of hetero/words/spec.py)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from hetero.words.piece import StoredPiece


def captured_gradients(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Of the mean loss, whole, by logical name. Every element comes from exactly one owner (AssertionError)."""
    whole: dict[str, torch.Tensor] = {}
    written: dict[str, torch.Tensor] = {}
    for entry in sorted((folder / f"step-{step:08d}").glob("*.json")):
        values = load_file(entry.with_suffix(".safetensors"))
        for name, stored in StoredPiece.model_validate_json(entry.read_bytes()).tensors.items():
            box = tuple(slice(*bounds) for bounds in stored.region)
            whole.setdefault(name, torch.zeros(stored.shape))[box] = values[f"{name}/gradient"]
            written.setdefault(name, torch.zeros(stored.shape, dtype=torch.int64))[box] += 1
    odd = [name for name, count in written.items() if (count != 1).any()]
    assert not odd, f"elements without one owner: {odd}"
    return whole
