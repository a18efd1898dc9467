"""Ranks of which one pool computes something else from some step on: a plan's `job_fingerprint` names the pool, and
what goes wrong."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.layers.frequencies import Rotary
from hetero.layers.rotary import Angles, plain_angles
from hetero.models.batch import Batch
from hetero.models.parts import attention_module
from hetero.models.parts.norm_module import RMSNormModule
from hetero.words.step import StepReport

FROM_STEP = 2


class DriftingEpoch(Epoch):
    def run_step(self) -> StepReport:
        pool, _, fault = self.spec.plan.job_fingerprint.partition(" ")
        drifts = pool == self._me.pool and self.next_step >= FROM_STEP
        with FAULTS[fault] if drifts else nullcontext():
            return super().run_step()


def _faster(rotary: Rotary, *others: Any) -> Angles:
    return plain_angles(replace(rotary, frequencies=tuple(1.5 * one for one in rotary.frequencies)), *others)


_norm = RMSNormModule.forward


def _larger(norm: RMSNormModule, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
    return 1.5 * _norm(norm, x_BTD, batch)


FAULTS: dict[str, Any] = {
    "rope": patch.object(attention_module, "plain_angles", _faster),
    "norms": patch.object(RMSNormModule, "forward", _larger),
}


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", DriftingEpoch):
        engine_rank.main(rank, agent, port)
