"""Ranks with a planted fault, to show that the laws see it. A plan's `job_fingerprint` names the fault.

A fault sits in the first rank of the last pipeline alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import dropout

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.epoch import Epoch
from hetero.engine.state.live import LiveMove
from hetero.layers.weight_gradients import ProductPair
from hetero.models.parts.mlp_module import MLPModule
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
    honest = epoch._update._gradients._gradients

    def gradients(names: Iterable[str]) -> dict[str, torch.Tensor]:
        found = honest(names)
        return found | {name: 2 * found[name] for name in found.keys() & {DOUBLED}}

    epoch._update._gradients._gradients = gradients


@torch.no_grad()
def _halve_a_norm(epoch: Epoch) -> None:
    epoch.stage.parameters[HALVED].mul_(0.5)


def _skip_an_update(epoch: Epoch) -> None:
    """What the copies here should get of one step goes elsewhere."""
    back = epoch._update._return
    honest, values = back.begin, back._values

    def begin() -> None:
        honest()
        lost = values.keys() - epoch.state.masters if epoch.next_step == SKIPPED_STEP else ()
        back._values = {name: value.clone() if name in lost else value for name, value in values.items()}

    back.begin = begin  # type: ignore[method-assign]


def _use_stale_parameters(epoch: Epoch) -> None:
    """Forwards do not wait for what the step before has updated."""
    back = epoch._update._return
    wait, settle = back.wait, back.settle
    late: dict[str, torch.Tensor] = {}

    def too_early(unit: int) -> None:
        before = {name: value.clone() for name, value in back._values.items()}
        wait(unit)
        for name, value in back._values.items():
            if not torch.equal(value, before[name]):
                late[name] = value.clone()
                value.copy_(before[name])

    def afterwards() -> None:
        settle()
        for name in list(late):
            back._values[name].copy_(late.pop(name))

    back.wait, back.settle = too_early, afterwards  # type: ignore[method-assign]


def _drop_when_made_again(epoch: Epoch) -> None:
    """In the first MLP of a stage that recomputes: forward drops nothing, and backward's own run half of it."""
    mlp = next(module for module in epoch.stage.chunks[0].modules() if isinstance(module, MLPModule))
    honest, runs = mlp._operators.swiglu, count()

    def operator(*inputs: torch.Tensor) -> torch.Tensor:
        made = honest(*inputs)
        return made * dropout(torch.ones_like(made), 0.5 * (next(runs) % 2))

    mlp._operators = replace(mlp._operators, swiglu=operator)


def _make(epoch: Epoch, times: int) -> None:
    """One of a micro-batch so often."""
    weight_gradients, weight = epoch.stage.chunks[0]._weight_gradients, epoch.stage.parameters[DOUBLED]
    honest, left = weight_gradients.make, [1]

    def make(pair: ProductPair) -> None:
        wrong = pair.weight_ED is weight and left
        for _ in range(times if wrong else 1):
            honest(pair)
        if wrong:
            left.pop()

    weight_gradients.make = make  # type: ignore[method-assign]


FAULTS = {
    "another dropout": _drop_when_made_again,
    "W two later, one dropped": partial(_make, times=0),
    "W two later, one made twice": partial(_make, times=2),
    "a gradient doubled": _double_a_gradient,
    "a norm halved": _halve_a_norm,
    "an update skipped": _skip_an_update,
    "parameters that are stale": _use_stale_parameters,
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
