"""A directory of weights, written shard by shard: no more than one of them is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from hetero.huggingface.folder import INDEX, WEIGHTS

MOST_SHARD_BYTES = 5 * 10**9
"""As transformers has it."""


def write_shards(
    folder: Path,
    shapes: Mapping[str, Sequence[int]],
    dtype: torch.dtype,
    get: Callable[[str], torch.Tensor],
    most_bytes: int = MOST_SHARD_BYTES,
) -> None:
    """Writes tensors of these shapes, in this order; `get` gives one, of any type."""
    sizes = {name: dtype.itemsize * prod(shape) for name, shape in shapes.items()}
    shards = _shards(sizes, most_bytes)
    for file, names in shards.items():
        values = {name: _own(get(name).to(dtype)) for name in names}
        for name, value in values.items():
            if tuple(value.shape) != tuple(shapes[name]):
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(shapes[name])}")
        save_file(values, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        named = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": named}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(sizes: Mapping[str, int], most_bytes: int) -> dict[str, list[str]]:
    """Names by file; one of its own for a tensor that is larger than any should be."""
    shards, room = [list[str]()], most_bytes
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = most_bytes
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{n:05d}-of-{len(shards):05d}.safetensors": names for n, names in enumerate(shards, 1)}


def _own(value: torch.Tensor) -> torch.Tensor:
    """Contiguous, and alone in its storage, as the file format wants it."""
    alone = value.is_contiguous() and value.untyped_storage().nbytes() == value.numel() * value.element_size()
    return value if alone else value.clone(memory_format=torch.contiguous_format)
