"""Ranks that leave all of an update in host memory to the end of a step: no sum leaves the chip before the last
backward is over, and no step begins before all values are back.

`python -m benchmarks.offload` runs them beside the engine's own, which differ in nothing else.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.words.step import StepTotals


class PlainEpoch(Epoch):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._alone = set()

    def _update(self, step: int, loss_scale: float, counted: float) -> StepTotals:
        totals = super()._update(step, loss_scale, counted)
        self.settle()
        return totals


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", PlainEpoch):
        engine_rank.main(rank, agent, port)
