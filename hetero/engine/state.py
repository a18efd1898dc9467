"""A rank's part of the job's state: into a checkpoint and back, under any plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bridge.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.pieces import Reader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.optimizer import Optimizer

Places = Mapping[str, tuple[TensorLayout, int]]
"""Of each tensor held here: its layout and this rank's position in it."""


def save(
    store: CheckpointStore, step: int, rank: RankId, optimizer: Optimizer, places: Places
) -> dict[str, Any] | None:
    """Writes the state that this rank owns after `step` updates; None where it owns none."""
    state = optimizer.state()
    if not state:
        return None
    return write_piece(store.piece_path(step, rank), rank, state, places)


def load(
    store: CheckpointStore, step: int, parameters: Mapping[str, torch.Tensor], places: Places, optimizer: Optimizer
) -> Mapping[str, Any]:
    """Fills every shard held here from the checkpoint, and the masters and moments of those owned here. Returns the
    run's scalars."""
    with Reader(store, step) as reader:
        scalars = reader.manifest.run.scalars
        updates = int(scalars.get("updates") or 0)
        for name, parameter in parameters.items():
            layout, position = places[name]
            region = layout.region(position)
            parameter.data.copy_(reader.read(name, "parameter", region))
            if name in optimizer.masters:
                values = {kind: reader.read(name, kind, region) for kind in reader.kinds(name)}
                optimizer.restore(name, values, updates)
        return scalars
