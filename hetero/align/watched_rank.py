"""A rank that writes down what the units of its stage give in a step: the program that `emulated_step` starts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from balancer.plan.plan import Plan
from balancer.schedule.action import Kind
from balancer.schedule.lowering import actions_of
from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.align.operator_probe import EXPERTS, OperatorProbe
from hetero.align.seen_units import GRADIENT, OPERATOR, VALUE, key, write_seen
from hetero.engine.rank import Rank
from hetero.engine.step.stage import RankPlace, Stage
from hetero.models.architecture import Architecture
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit import LOSS, STREAM
from hetero.models.unit_module import Boundary
from hetero.words.orders import Configure, Configured
from hetero.words.step import StepReport


class StageWatch:
    """Of the units of a stage: `seen` has tensors by their `key`, gradients of the scaled loss among them."""

    def __init__(self, stage: Stage, plan: Plan, model: Architecture) -> None:
        self.seen: dict[str, torch.Tensor] = {}
        self._probe = OperatorProbe()
        for index, chunk in stage.chunks.items():
            for number, unit in zip(chunk.parameters_of, chunk.units, strict=True):
                self._probe.watch(unit, model.tensors(number, 1))
                self._watch(number, unit, cycle(_forwards(plan, stage.place, index)))

    def _watch(self, number: int, unit: Any, micro_batches: Iterator[int]) -> None:
        """`micro_batches` are the numbers of those that come, in their order."""
        own = unit.forward

        def forward(boundary: Boundary, batch: Batch) -> Boundary:
            note = partial(self._note, number, next(micro_batches))
            with self._probe.looking(partial(_noting, note)):
                made: Boundary = own(boundary, batch)
            value = made[LOSS] if LOSS in made else made[STREAM]
            note(VALUE, value)
            if STREAM in made and value.requires_grad:
                value.register_hook(partial(note, GRADIENT))
            return made

        unit.forward = forward

    def _note(self, number: int, micro_batch: int, what: str, tensor: torch.Tensor) -> None:
        self.seen[key(number, micro_batch, what)] = tensor.detach().clone()


def _noting(note: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """Rows of experts come in an order of each micro-batch's own, and are not noted."""
    if not name.startswith(EXPERTS):
        note(OPERATOR + name, value)
    return value


def _forwards(plan: Plan, place: RankPlace, chunk: int) -> list[int]:
    """The micro-batches of a chunk's forwards, in their order."""
    actions = actions_of(plan.pipelines[place.pipeline], plan.schedule)[place.stage]
    return [action.micro_batch for action in actions if action.kind is Kind.F and action.chunk == chunk]


class WatchedRank(Rank):
    """Writes beside the gradients that it was asked to capture, before it reports the step."""

    _watch: StageWatch | None = None

    def _configure(self, order: Configure) -> Configured:
        answer = super()._configure(order)
        if self._epoch is not None:
            self._watch = StageWatch(self._epoch.stage, order.spec.plan, architecture(order.spec.model))
        return answer

    def _step(self) -> StepReport:
        report = super()._step()
        assert self._epoch is not None
        assert self._watch is not None
        capture, scale = self._epoch.spec.capture, self._epoch.stage.auxiliary.scale
        assert capture is not None
        ends = f"/{GRADIENT}"
        seen = {n: x.float() / scale if n.endswith(ends) else x for n, x in self._watch.seen.items()}
        write_seen(Path(capture.folder), self._me, seen)
        return report


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs."""
    WatchedRank(rank, agent, port).run()
