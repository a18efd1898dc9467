"""Ranks that count what a chip holds while state moves, and refuse to go on if that is not what was predicted. Their
backwards come in two actions where a plan says so, and they leave many packed samples out."""

from __future__ import annotations

from unittest.mock import patch

import torch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.state.live import LiveMove
from hetero.engine.state.state import State
from hetero.engine.step import samples
from hetero.layers.live_bytes import LiveBytes
from hetero.words.orders import Moved
from tests.distributed import documents
from tests.distributed.two_actions import SplitEpoch

with LiveBytes():
    torch.zeros(
        1
    )  # the first of its kind has torch load a second's worth of modules: better once, before ranks are forked

OFF = 0.1
NUMBERS_BYTES = 48
"""Updates and the loss scale, as a rank hears and tells them: not worth a prediction."""


class CountedMove(LiveMove):
    def run(self, state: State) -> tuple[State, Moved]:
        live = LiveBytes("cpu")  # emulated chips and their hosts; a shape on its way takes nothing
        for tensor in state.keyed().values():
            live.count(tensor)
        live.peak = live.now
        with live:
            result, moved = super().run(state)
        if abs(live.peak - moved.peak_bytes) > max(OFF * moved.peak_bytes, NUMBERS_BYTES):
            raise AssertionError(f"{live.peak} bytes at once while state moved, {moved.peak_bytes} were predicted")
        return result, moved


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    with (
        patch.object(engine_rank, "LiveMove", CountedMove),
        patch.object(engine_rank, "Epoch", SplitEpoch),
        patch.object(samples, "micro_batch", documents.micro_batch),
    ):
        engine_rank.main(rank, agent, port)
