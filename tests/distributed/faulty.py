"""Ranks with a planted fault, to show that the laws see it. A plan's `job_fingerprint` names the fault.

A fault sits in the first rank of the last pipeline alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.engine.state.live import LiveMove
from hetero.layers.weight_gradients import Kept
from tests.distributed.two_actions import SplitEpoch

DOUBLED = "units.2.down.weight"
HALVED = "units.2.norm.weight"
SKIPPED_STEP = 3
DEATH, MORTAL, DEATH_STATUS = "a death on the way", RankId("ascend", 1), 7


class FaultyEpoch(SplitEpoch):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        fault = FAULTS.get(self.spec.plan.job_fingerprint)
        pipelines = len(self.spec.plan.pipelines)
        if fault and (self.place.pipeline, self.place.stage, self.place.position) == (pipelines - 1, 0, 0):
            fault(self)


def _double_a_gradient(epoch: Epoch) -> None:
    honest = epoch._gradients._gradients

    def gradients(names: Iterable[str]) -> dict[str, torch.Tensor]:
        found = honest(names)
        return found | {name: 2 * found[name] for name in found.keys() & {DOUBLED}}

    epoch._gradients._gradients = gradients


@torch.no_grad()
def _halve_a_norm(epoch: Epoch) -> None:
    epoch.stage.parameters[HALVED].mul_(0.5)


def _skip_an_update(epoch: Epoch) -> None:
    honest = epoch._return.run
    replicas = {name: p.detach() for name, p in epoch.stage.parameters.items() if name not in epoch._optimizer.masters}

    def run(owned: dict[str, torch.Tensor]) -> None:
        before = {name: value.clone() for name, value in replicas.items()}
        honest(owned)
        if epoch.next_step == SKIPPED_STEP:
            for name, value in before.items():
                replicas[name].copy_(value)

    epoch._return.run = run  # type: ignore[method-assign]


def _make(epoch: Epoch, times: int) -> None:
    """One of a micro-batch so often."""
    products, weight = epoch.stage.chunks[0]._products, epoch.stage.parameters[DOUBLED]
    honest, left = products.make, [1]

    def make(kept: Kept) -> None:
        wrong = kept.weight_ED is weight and left
        for _ in range(times if wrong else 1):
            honest(kept)
        if wrong:
            left.pop()

    products.make = make  # type: ignore[method-assign]


FAULTS = {
    "W two later, one dropped": partial(_make, times=0),
    "W two later, one made twice": partial(_make, times=2),
    "a gradient doubled": _double_a_gradient,
    "a norm halved": _halve_a_norm,
    "an update skipped": _skip_an_update,
}


class DyingMove(LiveMove):
    """Of state that is on its way to `DEATH`: one rank ends when it has some of it."""

    def _carry(self, name: str, *arguments: Any) -> None:
        super()._carry(name, *arguments)
        if (self._after.plan.job_fingerprint, self._me) == (DEATH, MORTAL):
            os._exit(DEATH_STATUS)


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(engine_rank, "Epoch", FaultyEpoch), patch.object(engine_rank, "LiveMove", DyingMove):
        engine_rank.main(rank, agent, port)
