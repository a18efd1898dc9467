"""A model's weights as others have them, as a checkpoint of a run that has done no step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from bridge.layout.layout import Shape, TensorLayout, whole
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.huggingface.reader import HfReader
from hetero.models.architecture import Architecture
from hetero.models.hf_model import HfModel
from hetero.models.megatron_names import megatron_map
from hetero.models.registry import architecture
from hetero.models.stored_weights import StoredWeights

if TYPE_CHECKING:
    from hetero.checkpoint.megatron_folder import MegatronFolder

MOST_PIECE_BYTES = 5 * 10**9
_ITEM_BYTES = 4


ReadWhole = Callable[[str, Shape], torch.Tensor]
"""A whole logical tensor, of any type."""


def import_weights(
    stored: StoredWeights, model: Architecture, store: CheckpointStore, facts: dict[str, Any],
    most_bytes: int = MOST_PIECE_BYTES,
) -> None:  # fmt: skip
    """Saves every tensor in float32 as step 0. `facts` is what a job must have in common with it to go on from there.

    A piece of at most so many bytes is in memory at a time, or one tensor. Raises HfError where the directory is not
    the model's."""
    stored.check()
    reader = HfReader(stored.folder)

    def read(name: str, shape: Shape) -> torch.Tensor:
        return stored.map.read(name, whole(shape), lambda one, box: reader.get(stored.names[one], box))

    _save(read, model, store, facts, most_bytes)


def import_megatron(
    folder: MegatronFolder, model: HfModel, store: CheckpointStore, facts: dict[str, Any],
    most_bytes: int = MOST_PIECE_BYTES,
) -> None:  # fmt: skip
    """The same of a distributed checkpoint of Megatron-Core, whose optimizer is not read. Raises CheckpointError where
    it is not the model's, ModelError for a model whose names there are not known."""
    found = megatron_map(model)
    folder.check(found.foreign)
    _save(lambda name, shape: found.read(name, whole(shape), folder.get), architecture(model), store, facts, most_bytes)


def _save(read: ReadWhole, model: Architecture, store: CheckpointStore, facts: dict[str, Any], most_bytes: int) -> None:
    pieces = []
    store.begin(0)
    for number, shapes in enumerate(_pieces(_shapes(model), most_bytes)):
        rank = RankId("import", number)
        state = {name: {"parameter": read(name, shape).to(torch.float32)} for name, shape in shapes.items()}
        places = {name: (TensorLayout.replicated(shape, 1), 0) for name, shape in shapes.items()}
        pieces.append(write_piece(store.piece_path(0, rank), rank, state, places))
    run = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", job_facts=facts, plan={})
    store.commit(0, run, pieces)


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
