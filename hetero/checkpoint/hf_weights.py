"""The weights of a checkpoint's directory: each owner writes its bytes of files that several share.

Where a byte lies follows from names and shapes, so that nobody gathers what another owns and nobody waits. That needs a
file system; a store's files are written by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bridge.layout.layout import Shape, TensorLayout
from hetero.checkpoint.adapters import read_whole
from hetero.checkpoint.durable import file_in_place, make_folder, sync_files
from hetero.checkpoint.errors import DamagedCheckpoint
from hetero.checkpoint.hf_layout import HfLayout, ShardLayout
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.store import CheckpointStore
from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.models.weight_map import Slices

_AT_ONCE_BYTES = 64 << 20
_MOST_KEPT, _MOST_NAMED = 3, 3


class ForeignPart(NamedTuple):
    """What belongs to `where` of a foreign tensor."""

    where: Slices
    values: torch.Tensor


def write_owned(
    layout: HfLayout,
    folder: Path,
    state: Mapping[str, Mapping[str, torch.Tensor]],
    places: Mapping[str, tuple[TensorLayout, int]],
) -> None:
    """Writes the `parameter`s of `state`, which lie as `places` says, rounded to the directory's type. One tensor at a
    time is in memory besides. On return they are on the disk. Raises StorageFull."""
    make_folder(folder)
    found: dict[str, list[ForeignPart]] = {}
    for name, kinds in state.items():
        box = places[name][0].region(places[name][1])
        for foreign, where, values in layout.map.placed(name, box, kinds["parameter"].detach()):
            found.setdefault(foreign, []).append(ForeignPart(where, values))
    mine = [shard for shard in layout.shards if not found.keys().isdisjoint(shard.tensors)]
    for shard in mine:
        _write_shard(layout, folder, shard, {name: found[name] for name in shard.tensors if name in found})
    sync_files(folder, [shard.file for shard in mine])


def verify_weights(store: CheckpointStore, step: int) -> None:
    """Compares every byte of a directory's weights with the state, each value rounded to the directory's type; nothing
    where a checkpoint is no directory. Raises DamagedCheckpoint naming what differs."""
    folder, told = store.folder(step), {file.file for file in store.manifest(step).directory}
    if not told or not isinstance(folder, Path):
        return
    layout = HfLayout(HfModel.of(HfFolder(folder).config))
    untold = [shard.file for shard in layout.shards if shard.file not in told]
    with CheckpointReader(store, step) as reader:
        if faults := untold or list(_changed(layout, folder, reader)):
            more = f", and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
            rule = f"{', '.join(faults[:_MOST_NAMED])}{more} is not what the state says"
            remedy = "the state is whole: resume from it, or write the directory with hetero checkpoint export"
            raise DamagedCheckpoint("step", step, rule, remedy, file=str(folder))


def _changed(layout: HfLayout, folder: Path, reader: CheckpointReader) -> Iterator[str]:
    get, dtype = lru_cache(_MOST_KEPT)(partial(read_whole, reader)), getattr(torch, layout.dtype)
    for shard in layout.shards:
        with (folder / shard.file).open("rb") as file:
            if file.read(len(shard.header)) != shard.header:
                yield f"the header of {shard.file}"
                continue
            for name, (_, begin) in shard.tensors.items():
                wanted = layout.map.write(name, get).to(dtype)
                file.seek(begin)
                if file.read(wanted.nbytes) != _bytes(wanted):
                    yield f"{name} in {shard.file}"


def _write_shard(layout: HfLayout, folder: Path, shard: ShardLayout, mine: Mapping[str, Sequence[ForeignPart]]) -> None:
    with file_in_place(folder / shard.file, shard.size_bytes) as file:
        _write(file, memoryview(shard.header), 0)  # the same by whoever writes it
        for name, parts in mine.items():
            shape, begin = shard.tensors[name]
            for first, run in _runs(shape, parts, getattr(torch, layout.dtype)):
                _write(file, run, begin + first)


def _runs(shape: Shape, parts: Sequence[ForeignPart], dtype: torch.dtype) -> Iterator[tuple[int, memoryview]]:
    """Bytes that follow one another in a tensor, and the place of the first in it: of all that is in parts."""
    sides = list(zip(*(part.where for part in parts), strict=True))
    begins = [min(at.start for at in side) for side in sides]
    frame = [max(at.stop for at in side) - begin for side, begin in zip(sides, begins, strict=True)]
    values, there = torch.empty(frame, dtype=dtype), None
    if sum(part.values.numel() for part in parts) < values.numel():
        there = torch.zeros(frame, dtype=torch.bool)
    for part in parts:
        moved = zip(part.where, begins, strict=True)
        inside = tuple(slice(at.start - begin, at.stop - begin, at.step) for at, begin in moved)
        values[inside] = part.values.to(dtype)
        if there is not None:
            there[inside] = True
    rows, data, item = _rows(shape, begins, frame), _bytes(values), dtype.itemsize
    length = values.numel() // len(rows)
    for row, start, stop in _stretches((len(rows), length), there):
        here = row * length
        yield item * (rows[row] + start), data[item * (here + start) : item * (here + stop)]


def _rows(shape: Shape, begins: Sequence[int], frame: Sequence[int]) -> list[int]:
    """Where the rows of a box begin in the tensor that it lies in, counted in elements: as long as they can be."""
    strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    cut = max((dim for dim in range(len(shape)) if frame[dim] < shape[dim]), default=0)
    rows = np.array([sum(begin * stride for begin, stride in zip(begins, strides, strict=True))])
    for dim in range(cut):
        rows = (rows[:, None] + strides[dim] * np.arange(frame[dim])).reshape(-1)
    found: list[int] = rows.tolist()
    return found


def _stretches(shape: Sequence[int], there: torch.Tensor | None) -> Iterator[tuple[int, int, int]]:
    """By row, from where to where there is something; everywhere, if `there` is None."""
    if there is None:
        yield from ((row, 0, shape[1]) for row in range(shape[0]))
        return
    edges = np.diff(there.view(*shape).numpy(), axis=1, prepend=False, append=False)
    rows, ends = np.nonzero(edges)
    yield from zip(rows[::2].tolist(), ends[::2].tolist(), ends[1::2].tolist(), strict=True)


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(file, data[:_AT_ONCE_BYTES], offset)
        data, offset = data[done:], offset + done


def _bytes(values: torch.Tensor) -> memoryview:
    flat: Any = values.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
