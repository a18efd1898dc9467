"""A unit that another pool has computed, computed again on this chip: alone, from what that one was given.

Shapes: B sequences, T positions, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from backends.backend import Backend
from balancer.schedule.action import Kind
from hetero.engine.shadow.cargo import BATCH, gradient_before, stream_before
from hetero.engine.step.backward import backward
from hetero.engine.step.stage import DTYPES, NOWHERE
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.distance import length, relative
from hetero.models.registry import architecture
from hetero.models.tolerance import TOLERANCES
from hetero.models.unit import LOSS, STREAM
from hetero.models.unit_module import UnitModule, build_unit
from hetero.words.spec import RunSpec

Tensors = Mapping[str, torch.Tensor]
"""By the names of `cargo`."""
ExpectedOf = Callable[[int], Mapping[Kind, float]]
"""Seconds that an emulated chip takes for a unit's forward and its input's gradient; nothing of real chips."""


class UnitErrors(NamedTuple):
    """Relative ones, of what a unit gave and of the gradient of what it was given; None where that has none."""

    unit: int
    value: float
    gradient: float | None

    @property
    def worst(self) -> float:
        return self.value if self.gradient is None else max(self.value, self.gradient)


class UnitsAgain:
    """Units of one stage in their order, each whole, in this pool's `precision`. `shape_BT` is the micro-batch's;
    `loss_scale` is in its gradients. None is made of the units' tensors. `coarser` is the precision by whose tolerance
    they are judged."""

    def __init__(
        self,
        spec: RunSpec,
        shape_BT: tuple[int, int],
        precision: str,
        coarser: str,
        backend: Backend,
        loss_scale: float,
        expected_of: ExpectedOf,
    ) -> None:
        self._spec, self._shape_BT, self._dtype, self._backend = spec, shape_BT, DTYPES[precision], backend
        self._loss_scale, self._expected_of = loss_scale, expected_of
        self._units, self._auxiliary = architecture(spec.model, spec.train.tuning).units, AuxiliaryLoss()
        self._auxiliary.scale = loss_scale
        nothing = torch.empty(0, dtype=torch.int64)
        self._batch = Batch(nothing, nothing)
        self._came: dict[str, torch.Tensor] = {}
        self._floor = torch.finfo(DTYPES[coarser]).eps / TOLERANCES[coarser].alone

    def compare(self, unit: int, tensors: Tensors, came: Tensors) -> UnitErrors:
        """With what `came` of it; `tensors` are its own, by their logical names, on the chip."""
        known = {name: self._came[name] for name in (stream_before(unit), gradient_before(unit)) if name in self._came}
        self._came = known | dict(came)
        if BATCH in came:
            self._batch = self._unpacked(came[BATCH])
        expected = self._expected_of(unit)
        given = self._on_chip(stream_before(unit)).requires_grad_() if unit else None
        watch = self._backend.start(expected.get(Kind.F))
        boundary = {} if given is None else {STREAM: given}
        made = self._built(unit, tensors)(boundary, self._batch)[self._units[unit].gives]
        watch.stop()
        wanted = LOSS if self._is_last(unit) else stream_before(unit + 1)
        value = self._error(unit, made.detach(), wanted, beside=stream_before(unit))
        if given is None or gradient_before(unit) not in self._came:
            return UnitErrors(unit, value, None)
        watch = self._backend.start(expected.get(Kind.I))
        backward([made], [self._gradient_of(unit, made)])
        watch.stop()
        assert given.grad is not None
        gradient = self._error(unit, given.grad, gradient_before(unit), beside=gradient_before(unit + 1))
        return UnitErrors(unit, value, gradient)

    def _error(self, unit: int, found: torch.Tensor, wanted: str, beside: str) -> float:
        """Relative; where a unit adds something to what lies `beside` it, to what it adds, but to no less than a
        `floor` of the sum, which is rounded itself."""
        error = relative(found.cpu(), self._came[wanted])
        if not self._units[unit].residual or not 0.0 < error < math.inf:
            return error
        whole, passed = self._came[wanted].float(), self._came[beside].float()
        return error / min(1.0, length(whole - passed) / length(whole) + self._floor)

    def _is_last(self, unit: int) -> bool:
        return self._units[unit].gives == LOSS

    def _gradient_of(self, unit: int, made: torch.Tensor) -> torch.Tensor:
        if self._is_last(unit):
            return torch.full_like(made, self._loss_scale)
        return self._on_chip(gradient_before(unit + 1))

    def _on_chip(self, name: str) -> torch.Tensor:
        """(B * T, D) in host memory, as this chip computes with it: (B, T, D)."""
        x = self._came[name].to(self._backend.device, self._dtype)
        return x.detach().unflatten(0, self._shape_BT)

    def _unpacked(self, columns: torch.Tensor) -> Batch:
        return Batch(*columns.unflatten(1, self._shape_BT)).to(self._backend.device)

    def _built(self, unit: int, tensors: Tensors) -> UnitModule:
        operators = self._backend.operators
        builder = Builder(TensorGroup(), operators, self._dtype, NOWHERE, None, auxiliary=self._auxiliary)
        module = build_unit(self._spec.model, unit, builder, tuning=self._spec.train.tuning)
        for tensor in module.tensors():
            if tensor.parameter.device == NOWHERE:
                value = tensors[tensor.name].to(self._dtype)
                torch.utils.swap_tensors(tensor.parameter, nn.Parameter(value, requires_grad=False))
        return module
