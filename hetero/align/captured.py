"""Gradients that the owners of a plan captured (`Capture` of hetero/words/spec.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from hetero.align.errors import AlignError
from hetero.words.piece import StoredPiece


def captured_gradients(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Of the mean loss, whole, by logical name. Raises AlignError unless every element comes from exactly one owner."""
    whole: dict[str, torch.Tensor] = {}
    written: dict[str, torch.Tensor] = {}
    owners: dict[str, list[str]] = {}
    for entry in sorted((folder / f"step-{step:08d}").glob("*.json")):
        values, piece = (
            load_file(entry.with_suffix(".safetensors")),
            StoredPiece.model_validate_json(entry.read_bytes()),
        )
        for name, stored in piece.tensors.items():
            box = tuple(slice(*bounds) for bounds in stored.region)
            whole.setdefault(name, torch.zeros(stored.shape))[box] = values[f"{name}/gradient"]
            written.setdefault(name, torch.zeros(stored.shape, dtype=torch.int64))[box] += 1
            owners.setdefault(name, []).append(piece.rank)
    for name, count in written.items():
        _check_owned_once(name, count, owners[name])
    return whole


def _check_owned_once(name: str, count: torch.Tensor, owners: Sequence[str]) -> None:
    """`count` says of each element how many of the owners gave it."""
    if (count != 1).any():
        lacking, several = int((count == 0).sum()), int((count > 1).sum())
        rule = f"of its {count.numel()} elements {lacking} have no owner and {several} have several, among "
        raise AlignError("--against", name, rule + ", ".join(owners), "compare with another plan, and please report it")
