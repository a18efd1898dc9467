"""How modules get their parameters, and which logical tensors these are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from backends.operators import Operators
from bridge.layout.layout import Region, TensorLayout
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.group import TensorGroup
from hetero.layers.initial import fill_normal
from hetero.layers.rerun import Operator
from hetero.layers.spec import AdapterSpec, Constant, TensorSpec
from hetero.layers.weight_gradients import WeightGradients


@dataclass(frozen=True)
class LogicalTensor:
    """This rank's part of a logical tensor: `parameter` has the shape `layout.local_shape(rank in the group)`."""

    name: str
    layout: TensorLayout
    parameter: nn.Parameter


@dataclass(frozen=True)
class Builder:
    """Makes this rank's parameters, for modules that run `operators` and talk over `group`.

    `seed` None leaves memory as it comes, for values that are loaded next. `shared` holds the tied parameters by name:
    the units of one rank that are built with the same dictionary use one parameter. `weight_gradients` is what makes
    those of products, `auxiliary` what lets losses of parts into a backward, and `adapters` are what is added to
    products, by the names of their weights. `remade` makes of a function one of whose results backward makes them
    again, where the stage does so with `operators`.
    """

    group: TensorGroup
    operators: Operators
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int | None = 0
    shared: dict[str, nn.Parameter] = field(default_factory=dict)
    weight_gradients: WeightGradients = field(default_factory=WeightGradients)
    auxiliary: AuxiliaryLoss = field(default_factory=AuxiliaryLoss)
    adapters: Mapping[str, AdapterSpec] = field(default_factory=dict)
    remade: Callable[[Operator], Operator] | None = None

    def parameter(self, spec: TensorSpec) -> nn.Parameter:
        """This rank's slice of the tensor, with its first values."""
        shape = spec.layout.local_shape(self.group.rank)
        parameter = nn.Parameter(torch.empty(shape, dtype=self.dtype, device=self.device), spec.trains)
        if self.seed is not None:
            fill(parameter, spec, spec.layout.region(self.group.rank), self.seed)
        return parameter

    def shared_parameter(self, spec: TensorSpec) -> nn.Parameter:
        """The same, but made once for all units of this rank that use the tensor."""
        if spec.name not in self.shared:
            self.shared[spec.name] = self.parameter(spec)
        return self.shared[spec.name]


class ShardedModule(nn.Module):
    """A module whose own parameters are slices of logical tensors; one operator, unless it says otherwise."""

    is_operator = True

    def __init__(self) -> None:
        super().__init__()
        self._specs: dict[str, TensorSpec] = {}

    def hold(self, attribute: str, spec: TensorSpec, parameter: nn.Parameter) -> None:
        """Register this rank's part of a logical tensor under an attribute's name."""
        self.register_parameter(attribute, parameter)
        self._specs[attribute] = spec

    def own_tensors(self) -> Iterator[LogicalTensor]:
        """The logical tensors of this module, without those of its submodules."""
        for attribute, spec in self._specs.items():
            yield LogicalTensor(spec.name, spec.layout, getattr(self, attribute))


def tensors(module: nn.Module) -> Iterator[LogicalTensor]:
    """The logical tensors that a module and its submodules use, in the order of construction."""
    for part in module.modules():
        if isinstance(part, ShardedModule):
            yield from part.own_tensors()


@torch.no_grad()
def fill(parameter: torch.Tensor, spec: TensorSpec, region: Region, seed: int) -> None:
    """Write the first values of a box of the tensor: a function of seed and name alone."""
    if isinstance(spec.initial, Constant):
        parameter.fill_(spec.initial.value)
        return
    fill_normal(parameter, spec.name, seed, spec.layout.shape, region, spec.initial.std)
