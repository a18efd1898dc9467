"""A distributed checkpoint of Megatron-Core that is read, by boxes of tensors. No code from one is ever run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorStorageMetadata

from bridge.layout.layout import Region, Shape, overlap
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.megatron import LATEST, TABLE, StackedName
from hetero.checkpoint.pieces import within
from hetero.foreign import open_plain, read_plain
from hetero.models.megatron_names import LAYERS
from hetero.models.weight_map import Slices

MOST_TABLE_BYTES, MOST_NAMED = 1 << 30, 3
_PREFIXES = ("", "module.", "model.")
_OF_MODEL = (LAYERS, "decoder.final_layernorm.", "embedding.", "output_layer.")
_PADDED = {"embedding.word_embeddings.weight", "output_layer.weight"}
"""Their vocabulary has rows that no token is for."""


class MegatronFolder:
    """One that is read. Raises CheckpointError where it is none, or not of the model that is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Every tensor of the model is there, of its shape, and no other."""
        slots = {StackedName.of(foreign) for foreign in shapes}
        wanted = {slot.name for slot in slots}
        there = {name for name in self._tensors if name.startswith(_OF_MODEL)}
        told = {StackedName.of(name).name if name[len(LAYERS) : len(LAYERS) + 1].isdigit() else name for name in there}
        faults = [f"missing: {_listed(wanted - told)}"] if wanted - told else []
        faults += [f"of no use: {_listed(told - wanted)}"] if told - wanted else []
        if not faults:
            faults = [fault for foreign, shape in shapes.items() for fault in self._misshapen(foreign, tuple(shape))]
        if faults:
            rule = "; ".join(["its tensors are not those of its config.json", *faults[:MOST_NAMED]])
            raise self._error(rule, "give it the config.json of the model that it was trained as")

    def get(self, foreign: str, slices: Slices) -> torch.Tensor:
        """That part of a layer's tensor, from as many chunks as it lies in."""
        name, layer = self._found(foreign)
        box = tuple((one.start, one.stop) for one in slices)
        box = box if layer is None else ((layer, layer + 1), *box)
        table = self._tensors[name]
        whole = torch.empty([stop - start for start, stop in box], dtype=table.properties.dtype)
        filled: list[Region] = []
        for chunk in table.chunks:
            here = self._region(name, chunk, len(box))
            if (common := overlap(box, here)) is not None:
                if any(overlap(common, other) for other in filled):
                    raise self._error(f"{TABLE} has the same elements of {foreign} in two chunks", _COPY)
                whole[within(common, box)] = self._load(name, chunk)[within(common, here)]
                filled.append(common)
        if (found := sum(_elements(one) for one in filled)) != whole.numel():
            raise self._error(f"its chunks have {found} of {whole.numel()} elements of {foreign}", _COPY)
        return whole if layer is None else whole[0]

    def _misshapen(self, foreign: str, shape: Shape) -> Iterator[str]:
        name, layer = self._found(foreign)
        found = tuple(self._tensors[name].size)
        found = found if layer is None else found[1:]
        rows = found[:1] >= shape[:1] if foreign in _PADDED else found[:1] == shape[:1]
        if len(found) != len(shape) or found[1:] != shape[1:] or not rows:
            yield f"{foreign} has the shape {found}, the model {shape}"

    def _found(self, foreign: str) -> StackedName:
        """Layers that are unlike lie one by one."""
        return StackedName(foreign, None) if foreign in self._tensors else StackedName.of(foreign)

    def _region(self, name: str, chunk: ChunkStorageMetadata, rank: int) -> Region:
        if not len(chunk.offsets) == len(chunk.sizes) == rank or min((*chunk.offsets, *chunk.sizes), default=0) < 0:
            raise self._error(f"{TABLE} has a chunk of {name} that is no part of it", _COPY)
        return tuple((start, start + size) for start, size in zip(chunk.offsets, chunk.sizes, strict=True))

    def _load(self, name: str, chunk: ChunkStorageMetadata) -> torch.Tensor:
        told = self._table.storage_data.get(MetadataIndex(self._prefix + name, chunk.offsets))
        if not isinstance(told, _StorageInfo) or told.offset < 0 or told.length < 0:
            raise self._error(f"{TABLE} does not say where a chunk of {name} lies", _COPY)
        file = str(told.relative_path)
        if Path(file).name != file:
            raise self._error(f"{TABLE} names a file elsewhere, {file!r}", _COPY)
        try:
            with open_plain(self._place / file) as stream:
                stream.seek(told.offset)
                found = torch.load(io.BytesIO(stream.read(told.length)), map_location="cpu", weights_only=True)
        except Exception as error:  # bytes that are no tensor break in any way
            raise self._error(f"{file} cannot be read ({error})", _COPY) from None
        if not isinstance(found, torch.Tensor) or found.shape != torch.Size(chunk.sizes):
            rule = f"{file} has no tensor of the shape {tuple(chunk.sizes)} where {TABLE} has a chunk of {name}"
            raise self._error(rule, _COPY)
        return found

    @cached_property
    def _tensors(self) -> dict[str, TensorStorageMetadata]:
        """By name, without what is no tensor."""
        held = self._table.state_dict_metadata
        start = len(self._prefix)
        return {name[start:]: told for name, told in held.items() if isinstance(told, TensorStorageMetadata)
                and name.startswith(self._prefix)}  # fmt: skip

    @cached_property
    def _prefix(self) -> str:
        names = self._table.state_dict_metadata
        return next((one for one in _PREFIXES if f"{one}embedding.word_embeddings.weight" in names), "")

    @cached_property
    def _table(self) -> Metadata:
        try:
            found = _Data(io.BytesIO(read_plain(self._place / TABLE, MOST_TABLE_BYTES))).load()
        except FileNotFoundError:
            raise self._error(f"{self._place} has no {TABLE}", "name a checkpoint of torch_dist") from None
        except Exception as error:  # a pickle that is none breaks in any way
            raise self._error(f"its {TABLE} cannot be read ({error})", "save it with another version") from None
        tables = (getattr(found, name, None) for name in ("state_dict_metadata", "storage_data"))
        if not isinstance(found, Metadata) or not all(isinstance(one, dict) for one in tables):
            raise self._error(f"its {TABLE} is no table of a distributed checkpoint", _COPY)
        return found

    @cached_property
    def _place(self) -> Path:
        try:
            return self._path / f"iter_{int((self._path / LATEST).read_text(encoding='utf-8')):07d}"
        except (OSError, ValueError):
            return self._path

    def _error(self, rule: str, remedy: str) -> CheckpointError:
        return CheckpointError("DIR", str(self._path), rule, remedy)


class _Data(pickle.Unpickler):
    """Makes what a table consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "MCoreMetadata":  # of Megatron, with more than torch's own
            return Metadata
        plain = name in _KNOWN.get(module, ()) or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        )
        if not plain:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")
        return super().find_class(module, name)


_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath"},
}  # fmt: skip
_COPY = "copy the whole checkpoint again"


def _elements(region: Region) -> int:
    return prod(stop - start for start, stop in region)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
