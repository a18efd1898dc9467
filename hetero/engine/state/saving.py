"""A rank's part of the job's state: into a checkpoint and back, under any plan."""

from __future__ import annotations

from typing import Any

from bridge.rank import RankId
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state.routes import PARAMETER
from hetero.engine.state.state import State


def save(store: CheckpointStore, rank: RankId, state: State) -> dict[str, Any] | None:
    """Writes what this rank owns; None where it owns nothing."""
    owned = state.owned()
    if not owned:
        return None
    return write_piece(store.piece_path(state.step, rank), rank, owned, state.places)


def load(reader: CheckpointReader, state: State) -> None:
    """Fills every shard held here from the checkpoint, and the masters and moments of those owned here."""
    state.updates = reader.manifest.run.updates
    for name, value in state.values.items():
        layout, position = state.places[name]
        region = layout.region(position)
        value.copy_(reader.read(name, PARAMETER, region))
        if name in state.masters:
            state.restore(name, {kind: reader.read(name, kind, region) for kind in reader.kinds(name)})
