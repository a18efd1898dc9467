"""Units as torch modules. Shapes: B sequences, T positions, D hidden, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial, reduce
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from backends.operators import ELEMENTWISE, Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder, LogicalTensor, tensors
from hetero.layers.rerun import Remaker
from hetero.layers.spec import AdapterSpec, TensorSpec
from hetero.models.adapter import adapter_names
from hetero.models.batch import Batch
from hetero.models.description import ModelDescription
from hetero.models.parts.part import Part
from hetero.models.parts.projected_module import ProjectedModule
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.models.unit import STREAM, Unit

Boundary = dict[str, torch.Tensor]


class UnitModule(nn.Module):
    """One unit: boundary tensors in, boundary tensors out; the last one gives {"loss": the sum of token losses}."""

    def __init__(
        self, builder: Builder, unit: Unit, specs: Mapping[str, TensorSpec], recompute: Recompute = "none"
    ) -> None:
        super().__init__()
        self._recompute, self._remaker = unit.recomputed(recompute), Remaker()
        if self._recompute == "selective":
            remade = self._remaker.remade
            builder = replace(builder, operators=_remade(builder.operators, self._remaker), remade=remade)
        self.parts = nn.ModuleList(_module(builder, part, specs) for part in unit.parts)
        self._residual, self._gives, self._scale = unit.residual, unit.gives, unit.scale
        self._branches = [range(*ends) for ends in pairwise((*unit.branches, len(unit.parts)))]

    def forward(self, boundary: Boundary, batch: Batch) -> Boundary:
        x, inner = boundary.get(STREAM), partial(self._inner, batch=batch)
        if self._recompute == "none":
            y = self._outer(inner(x))
        else:
            with self._remaker.reading():
                y = self._outer((self._remaker.remade(inner) if self._recompute == "full" else inner)(x))
        if self._scale != 1.0:
            y = y * self._scale
        return {self._gives: boundary[STREAM] + y if self._residual else y}

    def _inner(self, x: Any, batch: Batch) -> torch.Tensor:
        """Through all parts; but for the last product, if they end in one, of which backward needs nothing."""
        if self._branches:
            return self._branched(x, batch)
        *parts, last = self.parts
        for part in parts:
            x = part(x, batch)
        return last.inner(x, batch) if isinstance(last, ProjectedModule) else last(x, batch)

    def _branched(self, x: Any, batch: Batch) -> torch.Tensor:
        for number in range(self._branches[0].start):
            x = self.parts[number](x, batch)
        return reduce(torch.add, (self._through(branch, x, batch) for branch in self._branches))

    def _through(self, branch: range, x: Any, batch: Batch) -> Any:
        for number in branch:
            x = self.parts[number](x, batch)
        return x

    def _outer(self, y: torch.Tensor) -> torch.Tensor:
        last = self.parts[-1]
        return last.outer(y) if isinstance(last, ProjectedModule) and not self._branches else y

    def tensors(self) -> Iterator[LogicalTensor]:
        """This rank's part of the logical tensors that the unit uses."""
        return tensors(self)


def _remade(operators: Operators, remaker: Remaker) -> Operators:
    """With `ELEMENTWISE` ones that keep what they are given alone."""
    remade: dict[str, Any] = {name: remaker.remade(getattr(operators, name)) for name in ELEMENTWISE}
    return replace(operators, **remade)


def _module(builder: Builder, part: Part, specs: Mapping[str, TensorSpec]) -> nn.Module:
    module, _, name = part.module.partition(":")
    return getattr(import_module(module), name)(builder, part, specs)


def build_unit(
    description: ModelDescription,
    index: int,
    builder: Builder,
    recompute: Recompute = "none",
    tuning: Tuning = EVERYTHING,
) -> UnitModule:
    """Unit `index` of the model, as rank `builder.group.rank` of its group holds it, of whose values backward makes
    again what `recompute` says.

    Units of one rank have one builder, so that they use one parameter for a tied tensor. Raises LayoutError where the
    group's size is illegal for the model.
    """
    model, group = architecture(description, tuning), builder.group
    unit, specs = model.units[index], model.tensors(index, group.size, group.sequence_parallel, group.spread)
    return UnitModule(replace(builder, adapters=_adapters(unit, specs)), unit, specs, recompute)


def _adapters(unit: Unit, specs: Mapping[str, TensorSpec]) -> dict[str, AdapterSpec]:
    """By the logical names of the weights that they stand beside."""
    found = {}
    for weight, adapter in unit.adapters.items():
        a, b = adapter_names(weight)
        found[specs[weight].name] = AdapterSpec(specs[a], specs[b], adapter.scale)
    return found
