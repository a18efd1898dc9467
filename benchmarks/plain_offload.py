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
from hetero.engine import epoch as engine_epoch
from hetero.engine import rank as engine_rank
from hetero.engine.state.update import StepUpdate
from hetero.words.step import StepTotals


class PlainUpdate(StepUpdate):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._alone = set[str]()

    def run(self, *spoken: Any) -> StepTotals:
        totals = super().run(*spoken)
        self.arrival.settle()
        return totals


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_epoch, "StepUpdate", PlainUpdate):
        engine_rank.main(rank, agent, port)
