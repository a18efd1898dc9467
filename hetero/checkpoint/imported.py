"""The weights of a model's directory as a checkpoint, of a run that has done no step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch

from bridge.layout.layout import Shape, TensorLayout, whole
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.huggingface.reader import HfReader
from hetero.models.architecture import Architecture
from hetero.models.stored_weights import StoredWeights

MOST_PIECE_BYTES = 5 * 10**9
_ITEM_BYTES = 4


def import_weights(
    stored: StoredWeights, model: Architecture, store: CheckpointStore, facts: dict[str, Any],
    most_bytes: int = MOST_PIECE_BYTES,
) -> None:  # fmt: skip
    """Saves every tensor in float32 as step 0. `facts` is what a job must have in common with it to go on from there.

    A piece of at most so many bytes is in memory at a time, or one tensor. Raises HfError where the directory is not
    the model's."""
    stored.check()
    reader, pieces = HfReader(stored.folder), []
    store.begin(0)
    for number, shapes in enumerate(_pieces(_shapes(model), most_bytes)):
        rank = RankId("import", number)
        state = {name: {"parameter": _read(stored, reader, name, shape)} for name, shape in shapes.items()}
        places = {name: (TensorLayout.replicated(shape, 1), 0) for name, shape in shapes.items()}
        pieces.append(write_piece(store.piece_path(0, rank), rank, state, places))
    run = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", job_facts=facts, plan={})
    store.commit(0, run, pieces)


def _read(stored: StoredWeights, reader: HfReader, name: str, shape: Shape) -> torch.Tensor:
    found = stored.map.read(name, whole(shape), lambda one, box: reader.get(stored.names[one], box))
    return found.to(torch.float32)


def _shapes(model: Architecture) -> dict[str, Shape]:
    """Of the logical tensors, tied ones once."""
    specs = (spec for unit in range(len(model.units)) for spec in model.tensors(unit, 1).values())
    return {spec.name: spec.layout.shape for spec in specs}


def _pieces(shapes: Mapping[str, Shape], most_bytes: int) -> Iterator[dict[str, Shape]]:
    piece: dict[str, Shape] = {}
    room = most_bytes
    for name, shape in shapes.items():
        size = _ITEM_BYTES * prod(shape)
        if piece and size > room:
            yield piece
            piece, room = {}, most_bytes
        piece[name] = shape
        room -= size
    yield piece
