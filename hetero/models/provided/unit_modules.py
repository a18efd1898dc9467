"""transformers' own modules as units. Shapes: B sequences, T positions, D hidden, V vocabulary, N tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hetero.layers import cross_entropy
from hetero.layers.builder import Builder, LogicalTensor, ShardedModule, tensors
from hetero.layers.group import TensorGroup
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.provided.calls import calls_of
from hetero.models.provided.elementwise import elementwise, wrap
from hetero.models.provided.part import ProvidedPart
from hetero.models.provided.sharding import sharded
from hetero.models.provided.skeleton import settle, skeleton_of
from hetero.models.provided.told import ToldTensor


class ProvidedModule(ShardedModule):
    """Holds a unit's logical tensors, and puts them where transformers' modules look for parameters."""

    is_operator = False

    def __init__(self, builder: Builder, part: ProvidedPart, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self._builder, self._part, self._specs_within = builder, part, specs
        self._group = builder.group
        self._joined: list[tuple[nn.Module, str, list[str], int]] = []

    def fill(self, module: nn.Module, but: set[str], prefix: str = "") -> None:
        """The parameters and buffers of a module with those of the unit whose names begin so."""
        joined: dict[str, list[ToldTensor]] = {}
        for tensor in self._part.unit.tensors:
            if tensor.name in but or not tensor.parameter.startswith(prefix):
                continue
            spec = self._specs_within[tensor.name]
            name = tensor.name.replace(".", "-")
            if name not in self._parameters:
                shared = spec.name in self._builder.shared or tensor.shared
                self.hold(name, spec, (self._builder.shared_parameter if shared else self._builder.parameter)(spec))
            joined.setdefault(tensor.parameter.removeprefix(prefix), []).append(tensor)
        for path, parts in joined.items():
            parent, _, name = path.rpartition(".")
            owner, attributes = module.get_submodule(parent), [part.name.replace(".", "-") for part in parts]
            if parts[0].part is None:
                place = owner._buffers if name in owner._buffers else owner._parameters
                place[name] = self._parameters[attributes[0]]
            else:
                owner._parameters.pop(name)
                self._joined.append((owner, name, attributes, parts[0].axis))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, packed parameters are there, of their parts."""
        for owner, name, attributes, axis in self._joined:
            setattr(owner, name, torch.cat([getattr(self, one) for one in attributes], dim=axis))
        try:
            yield
        finally:
            for owner, name, _, _ in self._joined:
                delattr(owner, name)

    def tensors_held(self) -> Iterator[LogicalTensor]:
        """Its own, and those of the products in it."""
        return tensors(self)


class ProvidedEmbedding(ProvidedModule):
    """tokens_BT -> x_BTD."""

    def __init__(self, builder: Builder, part: ProvidedPart, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__(builder, part, specs)
        skeleton = skeleton_of(part.model)
        self.shell = skeleton.shell(part.gives)
        self.fill(self.shell.base, set())
        layout = specs[f"{skeleton.embedding_name}.weight"].layout
        if builder.group.size > 1:
            table = self.shell.base.get_submodule(skeleton.embedding_name)
            _cut_rows(table, builder.group, layout.region(builder.group.rank)[0])

    def forward(self, x_BTD: torch.Tensor | None, batch: Batch) -> torch.Tensor:
        settle(self.shell, batch.tokens_BT.device)
        return self.shell(batch)


class ProvidedLayer(ProvidedModule):
    """x_BTD -> x_BTD."""

    def __init__(self, builder: Builder, part: ProvidedPart, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__(builder, part, specs)
        self._number = unit_number(specs) - 1
        skeleton = skeleton_of(part.model)
        self.layer = skeleton.layer(self._number)
        self.fill(self.layer, sharded(self.layer, part.unit, builder, specs))
        if builder.remade is not None:
            for module in elementwise(self.layer):
                wrap(module, builder.remade)
        self._tuple = bool(part.unit.gives)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        settle(self.layer, x_BTD.device)
        part = self._part
        calls = calls_of(part, batch, x_BTD.dtype)
        with self.joined():
            made = calls[self._number](self.layer, x_BTD)
        return made[0] if self._tuple else made


class ProvidedNorm(ProvidedModule):
    """x_BTD -> x_BTD, in front of a head of ours."""

    is_operator = True

    def __init__(self, builder: Builder, part: ProvidedPart, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__(builder, part, specs)
        self.norm = skeleton_of(part.model).norm()
        self.fill(self.norm, set(), NORM)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        settle(self.norm, x_BTD.device)
        made: torch.Tensor = self.norm(x_BTD)
        return made


class ProvidedHead(ProvidedModule):
    """x_BTD -> the sum of the token losses, a float32 scalar: of logits that are made in a way of their own, all at
    once, by each rank."""

    def __init__(self, builder: Builder, part: ProvidedPart, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__(builder, part, specs)
        skeleton = skeleton_of(part.model)
        self.norm = skeleton.norm()
        self.fill(self.norm, set(), NORM)
        self.product = _HeadProduct()
        self.fill(self.product, set(), HEAD)
        self.logits = skeleton.behind(self.product)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        settle(self, x_BTD.device)
        logits_BTV = self.logits(self.norm(x_BTD))
        return cross_entropy.cross_entropy_sum(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), TensorGroup())


NORM, HEAD = "norm.", "head."


class _HeadProduct(nn.Module):
    """This rank's logits."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def unit_number(specs: Mapping[str, TensorSpec]) -> int:
    """By the logical names of its tensors."""
    return int(next(iter(specs.values())).name.split(".")[1])


def _cut_rows(embedding: Any, group: TensorGroup, rows: tuple[int, int]) -> None:
    """Numbers to vectors, of which a rank has those of some numbers."""
    own, (first, end) = embedding.forward, rows
    padding = getattr(embedding, "padding_idx", None)
    if padding is not None:
        embedding.padding_idx = padding - first if first <= padding < end else None

    def forward(numbers: torch.Tensor) -> torch.Tensor:
        elsewhere = (numbers < first) | (numbers >= end)
        found = own((numbers - first).masked_fill(elsewhere, 0))
        return group.reduce_out(found.masked_fill(elsewhere[..., None], 0))

    embedding.forward = forward
