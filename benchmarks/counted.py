"""Ranks that count the tensors which are there: `python -m benchmarks.memory` holds them against the plan's count."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from bridge.pipe import Pipe
from bridge.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.words.step import StepReport
from tests.live_bytes import LiveBytes


class CountedEpoch(Epoch):
    """Tells after each step how many bytes of tensors were alive at once, in this epoch so far."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._live = LiveBytes()
        with self._live:
            super().__init__(*args, **options)
            for tensor in self.state.keyed().values():
                self._live.count(tensor)
        self._live.peak = self._live.now

    def run_step(self) -> StepReport:
        with self._live:
            report = super().run_step()
        self._tell("counted", {"peak": self._live.peak, "pipeline": self.place.pipeline, "stage": self.place.stage})
        return report


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", CountedEpoch):
        engine_rank.main(rank, agent, port)
