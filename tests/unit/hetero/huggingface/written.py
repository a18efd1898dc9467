"""Directories of a model as others write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TENSORS = {"a.weight": torch.arange(12.0).view(3, 4), "b.bias": torch.ones(4), "c.weight": torch.zeros(2, 2)}


def write_folder(
    folder: Path, tensors: dict[str, torch.Tensor] = TENSORS, config: dict[str, Any] | None = None, shards: int = 1
) -> Path:
    """With config.json, and the tensors in so many files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
    weight_map = {name: files[number % shards] for number, name in enumerate(tensors)}
    for file in files:
        save_file({name: value for name, value in tensors.items() if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
