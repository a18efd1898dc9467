"""Ranks of which one pool turns queries and keys wrongly from some step on: the one that a plan's `job_fingerprint`
names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.layers.frequencies import Rotary
from hetero.layers.rotary import Angles, plain_angles
from hetero.models.parts import attention_module
from hetero.words.step import StepReport

FROM_STEP = 2


class DriftingEpoch(Epoch):
    def run_step(self) -> StepReport:
        drifts = self.spec.plan.job_fingerprint == self._me.pool and self.next_step >= FROM_STEP
        with patch.object(attention_module, "plain_angles", _faster if drifts else plain_angles):
            return super().run_step()


def _faster(rotary: Rotary, *others: Any) -> Angles:
    return plain_angles(replace(rotary, frequencies=tuple(1.5 * one for one in rotary.frequencies)), *others)


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", DriftingEpoch):
        engine_rank.main(rank, agent, port)
