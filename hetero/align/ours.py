"""A model of ours in one process, looked into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hetero.align.model_trace import ModelTrace
from hetero.align.operator_probe import OperatorProbe, Watcher
from hetero.align.source import Source
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit import LOSS, STREAM
from hetero.models.unit_module import UnitModule, build_unit


@dataclass(frozen=True)
class Local:
    """What a unit made of another's input, and of the gradient of its value: its own value, and its input's gradient
    where it has an input."""

    value: torch.Tensor
    gradient: torch.Tensor | None


class OurModel:
    """The units with the weights of `source`, computed in `dtype` on the CPU."""

    def __init__(self, source: Source, dtype: torch.dtype) -> None:
        self.source = source
        self.architecture, self._probe = architecture(source.description), OperatorProbe()
        builder = Builder(TensorGroup(), self._probe.operators, dtype, seed=None)
        count = range(len(self.architecture.units))
        self.units: list[UnitModule] = [build_unit(source.description, number, builder) for number in count]
        for number, unit in enumerate(self.units):
            self._probe.watch(unit, self.architecture.tensors(number, 1))
        self._parameters = {tensor.name: tensor.parameter for unit in self.units for tensor in unit.tensors()}
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(source.read(name))

    def trace(self, batch: Batch) -> ModelTrace:
        """Forward and backward through all units."""
        self.forget()
        values: list[torch.Tensor] = []
        operators: list[dict[str, torch.Tensor]] = []
        for number in range(len(self.units)):
            found: dict[str, torch.Tensor] = {}
            value = self._forward(number, values[-1] if values else None, batch, _keeper(found))
            value.retain_grad()
            values.append(value)
            operators.append(found)
        values[-1].backward()
        gradients = [_gradient(value) for value in values]
        return ModelTrace([value.detach() for value in values], gradients, operators, self.gradients())

    def alone(self, number: int, given: torch.Tensor | None, gradient: torch.Tensor, batch: Batch) -> Local:
        """Of one unit. Gradients of its tensors are added to those that are there."""
        given = None if given is None else given.detach().to(self.dtype).requires_grad_()
        value = self._forward(number, given, batch, lambda _, value: value)
        value.backward(gradient.to(value.dtype))
        return Local(value.detach(), None if given is None else _gradient(given))

    @torch.no_grad()
    def seen(self, number: int, given: torch.Tensor | None, batch: Batch, seen: Watcher) -> torch.Tensor:
        """What a unit gives where `seen` puts other values in its operators' place."""
        given = None if given is None else given.to(self.dtype)
        return self._forward(number, given, batch, seen)

    def forget(self) -> None:
        """The gradients of all tensors."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def gradients(self) -> Mapping[str, torch.Tensor]:
        """By logical name, of all backwards since the last `forget`."""
        return {name: _gradient(parameter).clone() for name, parameter in self._parameters.items()}

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self._parameters.values())).dtype

    def parameter(self, name: str) -> torch.Tensor:
        return self._parameters[name].detach()

    def _forward(self, number: int, given: torch.Tensor | None, batch: Batch, seen: Watcher) -> torch.Tensor:
        boundary = {} if given is None else {STREAM: given}
        with self._probe.looking(seen):
            made = self.units[number](boundary, batch)
        return made[LOSS] if LOSS in made else made[STREAM]


def _keeper(found: dict[str, torch.Tensor]) -> Watcher:
    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        found[name] = value.detach().clone()
        return value

    return keep


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros where there is none: of what is never trained."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.detach()
