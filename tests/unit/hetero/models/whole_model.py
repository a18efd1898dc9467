"""All units of a model in one process, and its gradients by logical name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from backends.operators import Operators
from hetero.layers.builder import Builder, LogicalTensor
from hetero.layers.cross_entropy import IGNORED
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.models.unit_module import UnitModule, build_unit

SMALL = {"layers": 2, "hidden": 64, "heads": 8, "kv_heads": 4, "ffn": 90, "vocab": 257}


def small(**changes: Any) -> Dimensions:
    return Dimensions(**{**SMALL, **changes})


def build(
    dims: ModelDescription, group: TensorGroup | None = None, dtype: torch.dtype = torch.float32
) -> list[UnitModule]:
    """The units on the CPU, tied parameters shared; every value is far from a special one."""
    builder = Builder(group or TensorGroup(), Operators(), dtype, seed=3)
    units = [build_unit(dims, index, builder) for index in range(len(architecture(dims).units))]
    for tensor in logical_tensors(units).values():
        _unsettle(tensor, builder.group.rank)
    return units


@torch.no_grad()
def _unsettle(tensor: LogicalTensor, position: int) -> None:
    """Move ones and zeros off, by an amount that depends on the logical index alone; make all weights larger."""
    index = torch.arange(int(np.prod(tensor.layout.shape))).reshape(tensor.layout.shape)
    part = index[tuple(slice(*bounds) for bounds in tensor.layout.region(position))]
    tensor.parameter.mul_(2.0).add_(0.1 * torch.sin(part.float()) * (tensor.parameter.dim() == 1))


def logical_tensors(units: list[UnitModule]) -> dict[str, LogicalTensor]:
    return {tensor.name: tensor for unit in units for tensor in unit.tensors()}


def text(dims: ModelDescription, sequences: int = 2, length: int = 24) -> Batch:
    tokens = torch.randint(0, dims.vocab, (sequences, length + 1), generator=torch.Generator().manual_seed(5))
    tokens[0, :3] = torch.tensor([0, dims.vocab - 1, 1])
    labels = tokens[:, 1:].clone()
    labels[:, 5::4] = IGNORED
    return Batch(tokens[:, :-1], labels)


DOCUMENTS = ((5, 11, 8), (24,), (1, 23))
"""Of the documents of three samples of 24 tokens."""


def packed(vocab: int) -> tuple[Batch, list[Batch]]:
    """Samples of several documents, and each of these alone. Every third label is ignored."""
    made = torch.Generator().manual_seed(9)
    tokens_BT = torch.randint(vocab, (len(DOCUMENTS), 24), generator=made)
    labels_BT = torch.randint(vocab, tokens_BT.shape, generator=made)
    labels_BT.view(-1)[::3] = IGNORED
    positions_BT, documents_BT, alone = torch.empty_like(tokens_BT), torch.empty_like(tokens_BT), []
    for b, lengths in enumerate(DOCUMENTS):
        end = 0
        for number, length in enumerate(lengths):
            first, end = end, end + length
            positions_BT[b, first:end], documents_BT[b, first:end] = torch.arange(length), number
            alone.append(Batch(tokens_BT[b : b + 1, first:end], labels_BT[b : b + 1, first:end]))
    return Batch(tokens_BT, labels_BT, positions_BT, documents_BT), alone


def loss_of(units: list[UnitModule], batch: Batch) -> torch.Tensor:
    boundary: dict[str, torch.Tensor] = {}
    for unit in units:
        boundary = unit(boundary, batch)
    return boundary["loss"]


@dataclass(frozen=True)
class Outcome:
    """A rank's loss, and its part of each gradient, as plain arrays."""

    loss: float
    gradients: dict[str, np.ndarray]


def train_once(group: TensorGroup, dims: ModelDescription, dtype: torch.dtype = torch.float32) -> Outcome:
    units = build(dims, group, dtype)
    loss = loss_of(units, text(dims))
    loss.backward()
    return Outcome(loss.item(), gradients_of(units))


def gradients_of(units: list[UnitModule]) -> dict[str, np.ndarray]:
    """By logical name, as plain arrays."""
    return {name: _gradient(t.parameter).float().numpy() for name, t in logical_tensors(units).items()}


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def assemble(
    dims: ModelDescription, tp: int, outcomes: list[Outcome], sequence_parallel: bool = False, spread: bool = False
) -> dict[str, np.ndarray]:
    """Whole gradients from the ranks' parts; checks what each layout says of its replicas."""
    whole: dict[str, np.ndarray] = {}
    model = architecture(dims)
    ways = tp, sequence_parallel, spread
    specs = [spec for unit in range(len(model.units)) for spec in model.tensors(unit, *ways).values()]
    for spec in specs:
        layout, gradient = spec.layout, np.zeros(spec.layout.shape, np.float32)
        for positions in layout.replica_groups():
            parts = [outcomes[position].gradients[spec.name] for position in positions]
            if layout.gradients == "equal":
                for part in parts[1:]:
                    np.testing.assert_array_equal(part, parts[0], err_msg=spec.name)
                parts = parts[:1]
            region = tuple(slice(*bounds) for bounds in layout.region(positions[0]))
            gradient[region] = np.sum(parts, axis=0)
        whole[spec.name] = gradient
    return whole


def assert_equal_gradients(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float) -> None:
    """By norm, each tensor against the larger of its own gradient and a ten-thousandth of the whole one (law 1)."""
    assert found.keys() == wanted.keys()
    total = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in wanted.values()))
    for name, gradient in wanted.items():
        limit = tolerance * max(float(np.linalg.norm(gradient)), 1e-4 * total)
        assert np.linalg.norm(found[name] - gradient) <= limit, name
