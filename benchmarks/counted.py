"""Ranks that count the tensors which are there: `python -m benchmarks.memory` holds them against the plan's count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import _disable_current_modes

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import epoch as engine_epoch
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.engine.state.host_update import HostUpdate
from hetero.engine.state.ownership import Holding
from hetero.engine.state.update import StepUpdate
from hetero.engine.step.stage import RankPlace
from hetero.engine.world import World
from hetero.layers.live_bytes import LiveBytes
from hetero.words.notices import RankNotice
from hetero.words.spec import RunSpec
from hetero.words.step import StepReport


@dataclass(frozen=True)
class Counted(RankNotice):
    """The most bytes of tensors that were there at once."""

    kind = "counted"
    pipeline: int
    stage: int
    peak: int


class CountedUpdate(StepUpdate):
    def _move_to_host(self, tensors: Sequence[Holding]) -> HostUpdate:
        """What lies there is no chip's, though it is the same memory here."""
        with _disable_current_modes():
            return super()._move_to_host(tensors)


class CountedEpoch(Epoch):
    """Tells after each step how many bytes of tensors were there at once, in this epoch so far: as its chip's allocator
    says, or by a count of those that are alive where there is no chip."""

    def __init__(self, spec: RunSpec, place: RankPlace, world: World, *others: Any) -> None:
        self._live = LiveBytes("cpu") if world.backend.device.type == "cpu" else None
        if self._live is None:
            torch.get_device_module(world.backend.device).reset_peak_memory_stats()
        with self._live or nullcontext():
            super().__init__(spec, place, world, *others)
        if self._live is not None:
            there = self.state.values if self._update.in_host else self.state.keyed()
            for tensor in there.values():
                self._live.count(tensor)
            self._live.peak = self._live.now

    def run_step(self) -> StepReport:
        with self._live or nullcontext():
            report = super().run_step()
        peak = self._backend.memory().peak_bytes if self._live is None else self._live.peak
        self._events.append(Counted(self.place.pipeline, self.place.stage, peak))
        return report


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", CountedEpoch), patch.object(engine_epoch, "StepUpdate", CountedUpdate):
        engine_rank.main(rank, agent, port)
