"""Ranks whose disk is slow: each save lasts `SAVE_S` at least, as one of a large state would.

`python -m benchmarks.checkpoint` runs them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.checkpoint.pieces import write_piece
from hetero.engine import rank as engine_rank
from hetero.engine.state import saving
from hetero.words.piece import StoredPiece

SAVE_S = 8.0


def _write_slowly(path: Any, rank: RankId, state: Mapping[str, Any], places: Mapping[str, Any]) -> StoredPiece:
    began = time.perf_counter()
    piece = write_piece(path, rank, state, places)
    time.sleep(max(0.0, SAVE_S - (time.perf_counter() - began)))
    return piece


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(saving, "write_piece", _write_slowly):
        engine_rank.main(rank, agent, port)
