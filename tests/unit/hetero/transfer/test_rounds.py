"""What a round sends is packed once, and is let go of when the round is over."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from backends.cpu import CpuBackend
from bridge.layout.reshard import Piece
from bridge.rank import RankId
from hetero.layers.live_bytes import LiveBytes
from hetero.transfer.messages import MessageSpec
from hetero.transfer.rounds import Round
from hetero.transfer.waits import Waits

ROWS, COLUMNS = 100, 10
BYTES = 4 * ROWS * COLUMNS


class Nobody:
    """A communicator of three whose other two send nothing."""

    members = (0, 1, 2)

    def __init__(self) -> None:
        self.gone: list[torch.Tensor] = []

    def all_to_all(self, inward: torch.Tensor, in_sizes: Any, outward: torch.Tensor, out_sizes: Sequence[int]) -> Any:
        self.gone = [part.clone() for part in outward.split(list(out_sizes))]
        return SimpleNamespace(wait=lambda: None)


def test_what_a_round_sends_is_packed_once_whatever_it_is_made_of() -> None:
    """Two flows to one chip and one to another: the parts of none are put together before."""
    backend, chips = CpuBackend(), Nobody()
    messenger: Any = SimpleNamespace(me=RankId("n", 0), backend=backend, waits=Waits(backend))
    pieces = [[torch.full((ROWS, COLUMNS), float(2 * i + j)) for j in range(2)] for i in range(3)]
    with LiveBytes() as live:
        round_ = Round(messenger, chips, torch.float32)  # type: ignore[arg-type]
        for target, pair in zip((1, 2, 1), pieces, strict=True):
            round_.sender(_message(target), "sync", "", torch.float32, 1).send_pieces(pair)
        assert live.now == 0
        round_.issue()
        chips_hold = sum(part.nbytes for part in chips.gone)
        assert live.peak - chips_hold == 6 * BYTES
        round_.finish()
        assert live.now - chips_hold == 0
    assert [part.unique().tolist() for part in chips.gone] == [[], [0, 1, 4, 5], [2, 3]]


def _message(target: int) -> MessageSpec:
    ends = RankId("n", 0), RankId("n", target)
    return MessageSpec(
        *ends, tuple((i, Piece(*ends, ((0, ROWS), (0, COLUMNS)), ((0, ROWS), (0, COLUMNS)))) for i in range(2))
    )
