"""The adapters of a checkpoint: folded into its weights, or written as PEFT reads them.

Where a directory has one matrix for several of ours, its adapter has the factors of all, A stacked and B in blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bridge.layout.layout import whole
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.pieces import CheckpointReader
from hetero.models.adapter import adapter_names
from hetero.models.tuning import LoraOptions
from hetero.models.weight_map import WeightMap

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def read_whole(reader: CheckpointReader, name: str) -> torch.Tensor:
    """A logical tensor."""
    return reader.read(name, "parameter", whole(reader.shape(name)))


def merged(reader: CheckpointReader, lora: LoraOptions, name: str) -> torch.Tensor:
    """A logical tensor with what its adapter adds, in float32: only who writes it rounds."""
    weight = read_whole(reader, name)
    if adapter_names(name)[0] not in reader.names():
        return weight
    a, b = _factors(reader, name)
    return weight.float() + lora.alpha / lora.rank * (b.float() @ a.float())


def write_adapter(
    folder: Path, reader: CheckpointReader, found: WeightMap, lora: LoraOptions, base: str | None
) -> None:
    """Writes both files. Raises CheckpointError for what PEFT's format has no place for."""
    if lora.train_also:
        rule, remedy = "tensors of the model itself have been trained beside the adapters", "export with --merge"
        raise CheckpointError("train.lora.train_also", list(lora.train_also), rule, remedy)
    tensors: dict[str, torch.Tensor] = {}
    parts: dict[str, int] = {}
    for name, logical in _adapted(reader, found):
        module = name.removesuffix(".weight")
        a, b = _of_matrix(reader, found, name, logical)
        tensors |= {f"{_PREFIX}{module}.lora_A.weight": a, f"{_PREFIX}{module}.lora_B.weight": b}
        parts[module] = len(logical)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = _config(lora, parts, [name.removesuffix(".weight") for name in found.foreign], base)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _adapted(reader: CheckpointReader, found: WeightMap) -> Iterator[tuple[str, list[str]]]:
    """The directory's matrices, each with those of ours in it that have adapters."""
    known = reader.names()
    for name in found.foreign:
        if logical := [one for one in found.logical_of(name) if adapter_names(one)[0] in known]:
            yield name, logical


def _of_matrix(
    reader: CheckpointReader, found: WeightMap, name: str, logical: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a directory's matrix (out, in), or (in, out) where it is turned."""
    factors = {one: _factors(reader, one) for one in logical}
    blocks = []
    for one, (_, b) in factors.items():
        rows = _rows(found, name, one, {each: reader.shape(each) for each in found.logical_of(name)})
        block = b.new_zeros(len(rows), b.shape[1])
        block[rows >= 0] = b[rows[rows >= 0]]
        blocks.append(block)
    a, b = torch.cat([a for a, _ in factors.values()]), torch.cat(blocks, 1)
    return a.contiguous(), b.contiguous()


def _rows(found: WeightMap, name: str, one: str, shapes: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    """For each output of a directory's matrix the output of one of ours that it is, -1 if of none. Raises
    CheckpointError where its inputs are not those of ours."""

    def numbered(dim: int, logical: str) -> torch.Tensor:
        shape = shapes[logical]
        if logical != one:
            return torch.full(shape, -1)
        view = [-1 if at == dim else 1 for at in range(len(shape))]
        return torch.arange(shape[dim]).view(view).expand(shape)

    outputs, inputs = (found.write(name, partial(numbered, dim)) for dim in (0, 1))
    if outputs.dim() == 2 and (outputs != outputs[:, :1]).any():
        outputs, inputs = outputs.t(), inputs.t()
    plain = torch.arange(shapes[one][1])
    if outputs.dim() != 2 or not ((inputs == plain) | (inputs == -1)).all():
        raise CheckpointError("--adapter", name, "its inputs are not those of one product", "export with --merge")
    return outputs[:, 0]


def _factors(reader: CheckpointReader, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (read_whole(reader, name) for name in adapter_names(weight))
    return a, b


def _config(lora: LoraOptions, parts: Mapping[str, int], modules: Sequence[str], base: str | None) -> dict[str, Any]:
    """Modules by their last name, where all of that name have adapters. A matrix of several of ours has a rank and an
    alpha as many times as large."""
    names = {module: module.rpartition(".")[2] for module in parts}
    others = {module.rpartition(".")[2] for module in modules if module not in parts}
    targets = {module: module if name in others else name for module, name in names.items()}
    several = {targets[module]: count for module, count in parts.items() if count > 1}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(set(targets.values())),
        "rank_pattern": {name: count * lora.rank for name, count in several.items()},
        "alpha_pattern": {name: count * lora.alpha for name, count in several.items()},
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
