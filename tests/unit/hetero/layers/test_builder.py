"""How modules hold their part of logical tensors."""

from __future__ import annotations

import torch

from backends.operators import Operators
from bridge.layout.layout import TensorLayout
from hetero.layers.builder import Builder, tensors
from hetero.layers.group import TensorGroup
from hetero.layers.linear import Linear
from hetero.layers.spec import Constant, Normal, TensorSpec

WEIGHT = TensorSpec("w", TensorLayout.split((5, 4), 0, 2), Normal(0.02))
BIAS = TensorSpec("b", TensorLayout.split((5,), 0, 2), Constant(0.0))


def _builder(rank: int = 0, **changes: object) -> Builder:
    return Builder(TensorGroup(2, rank), Operators(), **changes)  # type: ignore[arg-type]


def test_each_rank_has_its_part_under_the_logical_name() -> None:
    for rank, rows in ((0, 3), (1, 2)):
        held = {tensor.name: tensor for tensor in tensors(Linear(_builder(rank), WEIGHT, BIAS))}
        assert held.keys() == {"w", "b"}
        assert held["w"].parameter.shape == (rows, 4)
        assert held["w"].layout is WEIGHT.layout


def test_tensors_looks_into_submodules_in_order() -> None:
    other = TensorSpec("n", TensorLayout.replicated((4, 4), 2), Normal(0.02))
    both = torch.nn.Sequential(Linear(_builder(), other), Linear(_builder(), WEIGHT))
    assert [tensor.name for tensor in tensors(both)] == ["n", "w"]


def test_type_and_device_are_the_builders() -> None:
    module = Linear(_builder(dtype=torch.bfloat16, device=torch.device("meta"), seed=None), WEIGHT)
    assert module.weight.dtype is torch.bfloat16
    assert module.weight.device.type == "meta"


def test_shared_tensors_are_one_parameter() -> None:
    builder = _builder()
    assert builder.shared_parameter(WEIGHT) is builder.shared_parameter(WEIGHT)
    assert Linear(builder, WEIGHT).weight is not Linear(builder, WEIGHT).weight
