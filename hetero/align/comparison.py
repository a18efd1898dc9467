"""Unit by unit: does a model of ours compute what a reference does?

Each unit is judged twice: behind all units before it, and alone, given what the reference's unit was given, so that one
fault does not blame what follows. The operators of a unit that fails alone are judged in the same way: each is given
what the reference's gave before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from hetero.align.alignment import HEAD, REST, Alignment, Errors, UnitAlignment
from hetero.align.difference import Difference
from hetero.align.model_trace import ModelTrace
from hetero.align.ours import OurModel
from hetero.align.shards import Shards
from hetero.align.source import Source
from hetero.align.weights import difference
from hetero.models.batch import Batch
from hetero.models.distance import length, relative
from hetero.models.tolerance import Tolerance
from hetero.models.unit import LOSS


def align(
    ours: Source, reference: Source, trace: ModelTrace, name: str, batch: Batch, dtype: str, tolerance: Tolerance
) -> Alignment:
    """Of what `ours` and a `trace` computed on one batch; `reference` has the weights of the trace, and `name` is what
    a person called it. They are models of one size."""
    model = OurModel(ours, getattr(torch, dtype))
    whole, comparison = model.trace(batch), _Comparison(model, trace, reference, batch, tolerance)
    return Alignment(ours.name, name, dtype, tolerance, [*comparison.units(whole)])


class _Comparison:
    """`floor` is what the norm of a tensor's gradient is taken to be at least."""

    def __init__(
        self, model: OurModel, trace: ModelTrace, reference: Source, batch: Batch, tolerance: Tolerance
    ) -> None:
        self._model, self._trace, self._reference, self._batch = model, trace, reference, batch
        self._tolerance = tolerance
        self._floor = tolerance.share * math.sqrt(sum(length(one) ** 2 for one in trace.tensors.values()))

    def units(self, found: ModelTrace) -> Iterator[UnitAlignment]:
        trace, count = self._trace, len(self._trace.values)
        self._model.forget()
        locals_ = [
            self._model.alone(number, self._given(number), trace.gradients[number], self._batch)
            for number in range(count)
        ]  # fmt: skip
        alone_gradients = self._model.gradients()
        for number, local in enumerate(locals_):
            whole = Errors(
                relative(found.values[number], trace.values[number]),
                relative(found.gradients[number], trace.gradients[number]),
                self._tensors(number, found.tensors),
            )
            given = 0.0 if local.gradient is None else relative(local.gradient, trace.gradients[number - 1])
            value = relative(local.value, trace.values[number])
            yield self._unit(number, whole, Errors(value, given, self._tensors(number, alone_gradients)))

    def _unit(self, number: int, whole: Errors, alone: Errors) -> UnitAlignment:
        unit, place = self._model.architecture.units[number], self._place(number)
        if alone.worst <= self._tolerance.alone:
            return UnitAlignment(number, unit.kind, place, whole, alone)
        return UnitAlignment(number, unit.kind, place, whole, alone, self._operators(number), self._weights(number))

    def _place(self, number: int) -> str:
        """What a directory calls it, and who computed the reference's."""
        return ", ".join(filter(None, (_place(self._model, number), *self._trace.computed_by[number : number + 1])))

    def _given(self, number: int) -> torch.Tensor | None:
        return self._trace.values[number - 1] if number else None

    def _tensors(self, number: int, gradients: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Of the unit's tensors; those of several units are judged with the last, whose backward comes first."""
        wanted, model = self._trace.tensors, self._model.architecture
        lent = {own for at, unit in enumerate(model.units) for owner, own in unit.ties.values() if owner == number < at}
        return {
            local: relative(gradients[spec.name], wanted[spec.name], self._floor)
            for local, spec in model.tensors(number, 1).items()
            if local not in lent
        }

    def _operators(self, number: int) -> dict[str, float]:
        """Those that the reference knows, and the rest."""
        known, errors = self._trace.operators[number], {}

        def seen(name: str, value: torch.Tensor) -> torch.Tensor:
            if (wanted := _whole(known.get(name), value)) is None:
                return value
            errors[name] = relative(value, wanted)
            same = wanted.numel() == value.numel()
            return wanted.reshape(value.shape).to(value.dtype) if same else value

        value = self._model.seen(number, self._given(number), self._batch, seen)
        unit = self._model.architecture.units[number]
        errors.setdefault(HEAD if unit.gives == LOSS else REST, relative(value, self._trace.values[number]))
        return errors

    def _weights(self, number: int) -> dict[str, Difference]:
        found = {}
        for local, spec in self._model.architecture.tensors(number, 1).items():
            how = difference(self._model.parameter(spec.name), self._reference.read(spec.name))
            if how:
                found[local] = how
        return found


def _whole(known: torch.Tensor | Shards | None, value: torch.Tensor) -> torch.Tensor | None:
    """None where the reference does not know it."""
    return known.whole(value.shape) if isinstance(known, Shards) else known


def _place(model: OurModel, number: int) -> str:
    """What a directory calls it: what the names of its tensors begin with."""
    unit, found = model.architecture.units[number], model.source.map
    specs = model.architecture.tensors(number, 1).items()
    names = [found.foreign_of(spec.name)[0].split(".") for local, spec in specs if local not in unit.ties]
    common = []
    for words in zip(*names, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return ".".join(common)
