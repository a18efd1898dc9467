"""Where every byte of a model's directory lies, before any tensor is there: a function of names and shapes. Torch-free.

config.json
model-00001-of-00006.safetensors   the tensors of one unit, so that its owners alone write there
model.safetensors.index.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from bridge.layout.layout import Shape
from bridge.precision import ITEM_BYTES
from hetero.huggingface.folder import CONFIG, DTYPES, INDEX
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, weights
from hetero.models.weight_map import WeightMap


@dataclass(frozen=True)
class ShardLayout:
    """One file: its first bytes, and of each tensor the shape and the place of its first byte."""

    file: str
    header: bytes
    tensors: Mapping[str, tuple[Shape, int]]
    size_bytes: int


class HfLayout:
    """The directory of `model`, every tensor in one `dtype`; None is that of the model's own configuration, or
    float32."""

    def __init__(self, model: HfModel, dtype: str | None = None) -> None:
        self._model, self.config = model, dict(model.values)
        named = str(self.config.get(_dtype_key(self.config)))
        self.dtype = dtype or (named if named in DTYPES.values() else "float32")
        self.config[_dtype_key(self.config)] = self.dtype

    @cached_property
    def map(self) -> WeightMap:
        return weights(self._model)

    @cached_property
    def shards(self) -> tuple[ShardLayout, ...]:
        """A file for each unit that has tensors of its own."""
        units: dict[int, list[str]] = {}
        for name in self.map.foreign:
            units.setdefault(self._unit_of[self.map.logical_of(name)[0]], []).append(name)
        count = len(units)
        files = (f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1))
        return tuple(self._shard(file, units[unit]) for file, unit in zip(files, sorted(units), strict=True))

    @property
    def files(self) -> dict[str, bytes]:
        """What belongs to the directory beside weights and tokenizer, by name."""
        named = {name: shard.file for shard in self.shards for name in shard.tensors}
        size = sum(shard.size_bytes - len(shard.header) for shard in self.shards)
        index = {"metadata": {"total_size": size}, "weight_map": named}
        told = {CONFIG: self.config, INDEX: index}
        return {name: (json.dumps(values, indent=2) + "\n").encode() for name, values in told.items()}

    @cached_property
    def _unit_of(self) -> dict[str, int]:
        """Of each logical tensor the unit that uses it first."""
        told, found = architecture(self._model), dict[str, int]()
        for unit in range(len(told.units)):
            for spec in told.tensors(unit, 1).values():
                found.setdefault(spec.name, unit)
        return found

    def _shard(self, file: str, names: list[str]) -> ShardLayout:
        code = next(code for code, dtype in DTYPES.items() if dtype == self.dtype)
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            shape = self.map.foreign[name]
            start, end = end, end + ITEM_BYTES[self.dtype] * prod(shape)
            entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        begins = {name: len(header) + entries[name]["data_offsets"][0] for name in names}
        tensors = {name: (tuple(self.map.foreign[name]), begin) for name, begin in begins.items()}
        return ShardLayout(file, header, tensors, len(header) + end)


def _dtype_key(config: Mapping[str, Any]) -> str:
    return "torch_dtype" if "torch_dtype" in config else "dtype"
