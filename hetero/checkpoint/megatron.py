"""Distributed checkpoints of Megatron-Core (`torch_dist`): the tensors of all layers stacked, in chunks of any cut.

latest_checkpointed_iteration.txt    the step
iter_0000500/metadata.json           how it was written
            .metadata                where each chunk lies; a pickle, of which nothing but data is taken
            common.pt                what is no tensor
            __0_0.distcp             chunks, as torch.save writes them
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter, save
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from bridge.layout.layout import Shape
from hetero.models.megatron_names import LAYERS

LATEST, TABLE, COMMON, HOW = "latest_checkpointed_iteration.txt", ".metadata", "common.pt", "metadata.json"
_BACKENDS = {
    "sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch",
    "common_backend_version": 1,
}  # fmt: skip


class StackedName(NamedTuple):
    """Where a layer's tensor lies: `layer` of the stack `name`, or, if that is None, `name` itself."""

    name: str
    layer: int | None

    @classmethod
    def of(cls, foreign: str) -> StackedName:
        if not foreign.startswith(LAYERS):
            return cls(foreign, None)
        layer, _, rest = foreign.removeprefix(LAYERS).partition(".")
        return cls(LAYERS + rest, int(layer))


def write_megatron(
    folder: Path, step: int, shapes: Mapping[str, Shape], dtype: torch.dtype, get: Callable[[str], torch.Tensor]
) -> None:
    """Writes tensors by their names with the layer; `get` gives one, of any type, and one is in memory at a time."""
    place = folder / f"iter_{step:07d}"
    planner = _LayerByLayer(shapes, dtype, get)
    with warnings.catch_warnings(action="ignore"):  # that no other process saves beside this one
        save({}, storage_writer=FileSystemWriter(place, thread_count=1), planner=planner, no_dist=True)
    torch.save({"checkpoint_version": 3.0, "iteration": step}, place / COMMON)
    (place / HOW).write_text(json.dumps(_BACKENDS), encoding="utf-8")
    (folder / LATEST).write_text(str(step), encoding="utf-8")


class _LayerByLayer(DefaultSavePlanner):
    """Each layer is a chunk of its stack."""

    def __init__(self, shapes: Mapping[str, Shape], dtype: torch.dtype, get: Callable[[str], torch.Tensor]) -> None:
        super().__init__(flatten_state_dict=False)
        self._shapes, self._dtype, self._get = shapes, dtype, get
        self._foreign = {StackedName.of(foreign): foreign for foreign in shapes}
        self._layers = 1 + max(slot.layer for slot in self._foreign if slot.layer is not None)

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([self._item(slot, tuple(self._shapes[name])) for slot, name in self._foreign.items()])
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        fqn, offset = write_item.index.fqn, write_item.index.offset
        slot = StackedName(fqn, offset[0] if offset and fqn.startswith(LAYERS) else None)
        found = self._get(self._foreign[slot]).to(self._dtype).contiguous()
        return found if slot.layer is None else found[None]

    def _item(self, slot: StackedName, shape: Shape) -> WriteItem:
        begin, size = (0,) * len(shape), shape
        if slot.layer is not None:
            begin, shape, size = (slot.layer, *begin), (1, *shape), (self._layers, *shape)
        chunk = ChunkStorageMetadata(torch.Size(begin), torch.Size(shape))
        told = TensorWriteData(chunk, TensorProperties(dtype=self._dtype), torch.Size(size))
        return WriteItem(MetadataIndex(slot.name, begin), WriteItemType.SHARD, tensor_data=told)
