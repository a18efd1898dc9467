"""The part of the model that one rank holds: its chunks as modules, its parameters by logical name, their gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from backends.backend import Backend
from balancer.plan.plan import Plan, stage_ranks
from bridge.layout.axes import Axes
from bridge.rank import RankId
from hetero.engine.step.backward import backward
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import ProductPair, WeightGradients
from hetero.models.batch import Batch
from hetero.models.description import ModelDescription
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.models.unit_module import Boundary, build_unit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NOWHERE = torch.device("meta")
"""Modules are built without memory: they are given what lies there already."""


@dataclass(frozen=True)
class RankPlace:
    """Where a rank stands in a plan: its pipeline, its stage, and its position among the stage's ranks, which lie along
    `axes`."""

    pipeline: int
    stage: int
    position: int
    ranks: tuple[RankId, ...]
    axes: Axes

    def along(self, axis: str) -> int:
        """The rank's coordinate."""
        return self.axes.coordinates(self.position)[axis]

    def groups(self, axis: str) -> list[tuple[RankId, ...]]:
        """The stage's ranks, in groups that lie along an axis."""
        return [tuple(self.ranks[position] for position in group) for group in self.axes.groups(axis)]

    def __str__(self) -> str:
        return f"pipeline {self.pipeline} stage {self.stage}"


def place_of(plan: Plan, rank: RankId) -> RankPlace | None:
    """The rank's place, None where the plan does not use it."""
    for place in places(plan):
        if rank in place.ranks:
            return replace(place, position=place.ranks.index(rank))
    return None


def places(plan: Plan) -> Iterator[RankPlace]:
    """Every stage of the plan, as its first rank sees it."""
    for (pipeline, stage), placed in plan.stages():
        yield RankPlace(pipeline, stage, 0, stage_ranks(plan, pipeline, stage), placed.axes)


def updates_in_host(plan: Plan, rank: RankId) -> bool:
    """Whether the plan has the rank's masters and moments in host memory."""
    place = place_of(plan, rank)
    return place is not None and plan.pipelines[place.pipeline].stages[place.stage].optimizer == "host"


Made = Callable[[int, Iterable[str]], None]
"""Is told of a unit's number and the names of its tensors."""
Before = Callable[[int], None]
"""Is told of a unit's number before it runs."""


class ChunkModule(nn.Module):
    """Consecutive units, from number `first` on, run as one piece: boundary tensors in, boundary tensors (or the loss)
    out. A tensor that several of its units use is counted as the first one's, which a backward comes to last; one that
    does not train is not counted.

    `weight_gradients` makes the gradients of its products' weights."""

    def __init__(self, first: int, units: list[Any], weight_gradients: WeightGradients | None = None) -> None:
        super().__init__()
        self._weight_gradients = weight_gradients or WeightGradients()
        self.units = nn.ModuleList(units)
        self.parameters_of: dict[int, dict[str, nn.Parameter]] = {}
        seen: set[str] = set()
        for number, unit in enumerate(units, first):
            found = {tensor.name: tensor.parameter for tensor in unit.tensors() if tensor.parameter.requires_grad}
            self.parameters_of[number] = {name: p for name, p in found.items() if name not in seen}
            seen |= found.keys()
        self._unit_of: dict[Any, int] = {p: unit for unit, found in self.parameters_of.items() for p in found.values()}

    @property
    def names(self) -> list[str]:
        """Of all its tensors that train."""
        return [name for found in self.parameters_of.values() for name in found]

    def forward(self, boundary: Boundary, batch: Batch, before: Before | None = None) -> Boundary:
        for number, unit in zip(self.parameters_of, self.units, strict=True):
            if before is not None:
                before(number)
            boundary = unit(boundary, batch)
        return boundary

    def differentiate(self, outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """A backward from the gradients of outputs, if they depend on anything that trains. Afterwards no weight's
        gradient waits for a collective any more, which a part that has none in its backward leaves to do."""
        if any(output.requires_grad for output in outputs):
            backward(outputs, gradients)
        self._weight_gradients.flush()

    @contextmanager
    def telling(self, made: Made) -> Iterator[None]:
        """Inside, a whole backward tells of each unit when it has made the gradients of all its tensors."""
        hooks: dict[torch.Tensor, Callable[[torch.Tensor], None]] = {}
        for unit, found in self.parameters_of.items():
            left = set(found)
            for name, parameter in found.items():
                hooks[parameter] = partial(_tick, left, name, partial(made, unit, list(found)))
        others = hooks.keys() - self._weight_gradients.weights
        handles = [parameter.register_post_accumulate_grad_hook(hooks[parameter]) for parameter in others]
        try:
            with self._weight_gradients.telling(hooks):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def keeping(self) -> AbstractContextManager[deque[ProductPair]]:
        """Inside, a backward makes all gradients but those of products' weights, of which it leaves the pairs."""
        return self._weight_gradients.keeping()

    def make(self, pairs: deque[ProductPair], made: Made) -> None:
        """The gradients that a backward has left, and lets go of what they are made of. Tells of each unit when its own
        are made, from the last one on, as if all other gradients were there."""
        for unit, found in reversed(self.parameters_of.items()):
            while pairs and self._unit_of[pairs[0].weight_ED] == unit:
                self._weight_gradients.make(pairs.popleft())
            made(unit, list(found))
        assert not pairs, "gradients of weights that are no unit's"


def _tick(left: set[str], name: str, made: Callable[[], None], _: torch.Tensor) -> None:
    left.discard(name)
    if not left:
        made()


class Stage:
    """A rank's chunks and parameters. Gradients, of those that train, are float32 sums over the step so far, of the
    scaled token losses.

    `values` are the tensors that the parameters lie in, by name; they stay the caller's.
    """

    def __init__(
        self,
        model: ModelDescription,
        plan: Plan,
        place: RankPlace,
        group: TensorGroup,
        backend: Backend,
        precision: str,
        values: Mapping[str, torch.Tensor],
        tuning: Tuning = EVERYTHING,
    ) -> None:
        self.place, self.dtype = place, DTYPES[precision]
        self.chunks: dict[int, ChunkModule] = {}
        weight_gradients = WeightGradients(backend.operators.add_product)
        self.auxiliary = AuxiliaryLoss()
        self.parameters: dict[str, nn.Parameter] = {}
        builder = Builder(group, backend.operators, self.dtype, NOWHERE, None, {}, weight_gradients, self.auxiliary)
        placed = plan.pipelines[place.pipeline].stages[place.stage]
        for chunk in plan.pipelines[place.pipeline].chunks():
            if chunk.stage != place.stage:
                continue
            units = [
                build_unit(model, unit, builder, placed.recompute_of(unit), tuning) for unit in range(*chunk.units)
            ]
            self.chunks[chunk.index] = ChunkModule(chunk.units[0], units, weight_gradients)
            for unit in units:
                for tensor in unit.tensors():
                    if tensor.parameter.device == NOWHERE:
                        value = nn.Parameter(values[tensor.name], tensor.parameter.requires_grad)
                        torch.utils.swap_tensors(tensor.parameter, value)
                    self.parameters[tensor.name] = tensor.parameter
        first, last = 0, len(architecture(model).units) - 1
        held = {unit for chunk in placed.units for unit in range(*chunk)}
        self.reads_text = bool(held & {first, last})
        self.computes_loss = last in held
        self._wide = self._accumulate_in_float32(weight_gradients) if self.dtype != torch.float32 else None

    def gradients(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """This rank's float32 sums of these tensors; valid until `clear`."""
        wide, parameters = self._wide, self.parameters
        return {name: _gradient(parameters[name]) if wide is None else wide[name] for name in names}

    def clear(self) -> None:
        """Begins a new step's sums."""
        if self._wide is not None:
            torch._foreach_zero_(list(self._wide.values()))
        for parameter in self.parameters.values():
            parameter.grad = None

    def _accumulate_in_float32(self, weight_gradients: WeightGradients) -> dict[str, torch.Tensor]:
        trained = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in trained.items()}
        for name, parameter in trained.items():
            if parameter not in weight_gradients.weights:
                parameter.register_post_accumulate_grad_hook(_Widen(sums[name]))
        weight_gradients.sums = {parameter: sums[name] for name, parameter in trained.items()}
        return sums


class _Widen:
    """Adds a narrow gradient to its float32 sum as soon as autograd has made it."""

    def __init__(self, total: torch.Tensor) -> None:
        self._total = total

    def __call__(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self._total.add_(parameter.grad)
        parameter.grad = None


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
