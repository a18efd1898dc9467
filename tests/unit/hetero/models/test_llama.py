"""What the architecture tells of itself, and how its units behave alone."""

from __future__ import annotations

import math

import pytest
import torch

from backends.operators import Operators
from bridge.layout import LayoutError
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.errors import ModelError
from hetero.models.llama import EMBEDDING, Llama
from hetero.models.llama_units import build_unit
from hetero.models.options import load_preset
from hetero.models.registry import architecture, unit_builder
from tests.live_bytes import LiveBytes
from tests.unit.hetero.models.whole_model import build, logical_tensors, loss_of, small, text

PLACE = (Operators(), torch.float32, torch.device("cpu"))


def test_units_are_embedding_half_layers_and_head() -> None:
    kinds = [unit.kind for unit in Llama.units(small())]
    assert kinds == ["embedding", "attention", "mlp", "attention", "mlp", "head"]
    assert len({unit.name for unit in Llama.units(small())}) == 6
    assert Llama.legal_cuts(small()) == frozenset(range(6))


def test_registry_knows_llama_and_says_what_is_near() -> None:
    assert architecture("llama") is Llama
    assert unit_builder("llama") is build_unit
    with pytest.raises(ModelError, match="did you mean llama"):
        architecture("lama")


@pytest.mark.parametrize(
    ("tp", "changes", "reason"),
    [
        (1, {}, None),
        (2, {}, None),
        (8, {}, None),
        (8, {"kv_heads": 1}, None),
        (3, {}, "heads"),
        (16, {}, "heads"),
        (4, {"heads": 12, "hidden": 72, "kv_heads": 6}, "kv_heads"),
        (8, {"vocab": 7}, "vocab"),
        (8, {"ffn": 7}, "ffn"),
    ],
)
def test_legal_tp(tp: int, changes: dict[str, int], reason: str | None) -> None:
    dims = small(**changes)
    found = Llama.legal_tp(dims, tp)
    if reason is None:
        assert found is None
        assert all(Llama.tensors(dims, unit, tp) for unit in range(6))
    else:
        assert reason in str(found)
        with pytest.raises(LayoutError, match=reason):
            Llama.tensors(dims, 1, tp)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"qkv_bias": True, "kv_heads": 2}])
def test_counts_agree_with_the_modules_and_the_workload(changes: dict[str, int]) -> None:
    dims = small(**changes)
    built = sum(tensor.parameter.numel() for tensor in logical_tensors(build(dims)).values())
    work = Llama.workload(dims, seq_len=32, global_batch=4, precision="bfloat16")
    assert Llama.parameter_count(dims) == built == sum(unit.parameters for unit in work.units)
    assert [unit.kind for unit in work.units] == [unit.kind for unit in Llama.units(dims)]
    assert work.tied == Llama.tied(dims)
    assert {unit.boundary_bytes for unit in work.units[:-1]} == {32 * dims.hidden * 2}


def test_forward_flops_are_two_for_each_weight_and_token_plus_attention() -> None:
    dims = load_preset("llama-7b")
    work = Llama.workload(dims, seq_len=2048, global_batch=1, precision="bfloat16")
    products = Llama.parameter_count(dims) - dims.hidden * (dims.vocab + 2 * dims.layers + 1)
    attention = dims.layers * 2 * 2048**2 * dims.hidden  # scores and values, half of the square each
    assert sum(unit.forward_flops for unit in work.units) == pytest.approx(2.0 * 2048 * products + attention)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("kind", ["embedding", "attention", "mlp", "head"])
def test_bytes_are_those_of_the_tensors_that_are_there(kind: str, kv_heads: int, dtype: torch.dtype) -> None:
    """What a unit keeps, and what it needs while it runs, within a fiftieth of a count of live tensors."""
    dims, length = small(vocab=1500, ffn=176, heads=4, kv_heads=kv_heads), 128
    index = [unit.kind for unit in Llama.units(dims)].index(kind)
    unit = build_unit(dims, index, TensorGroup(), Operators(), dtype, torch.device("cpu"), seed=0)
    tokens_BT = torch.zeros(1, length, dtype=torch.int64)
    x_BTD = torch.randn(1, length, dims.hidden, dtype=dtype, requires_grad=True)
    unit({"x_BTD": x_BTD}, Batch(tokens_BT, tokens_BT))  # its angles are made once
    for parameter in unit.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        (out,) = unit({"x_BTD": x_BTD}, Batch(tokens_BT, tokens_BT)).values()
        forward, kept = live.peak, live.now
        gradient = torch.ones_like(out)
        live.peak = live.now
        out.backward(gradient)
    size, told = dtype.itemsize, Llama.workload(dims, length, 1, str(dtype).removeprefix("torch.")).units[index]
    given = 4 * x_BTD.numel() if size == 4 and told.activation_bytes else 0  # its norm keeps what was there before
    assert kept == pytest.approx(told.activation_bytes - given + told.boundary_bytes, rel=0.02)
    room = told.boundary_bytes if told.activation_bytes else 0  # beside the result, which an embedding makes at once
    assert forward == pytest.approx(kept + room + told.forward_bytes, rel=0.02)
    needs = max(told.backward_bytes, told.whole_bytes + told.last_bytes - told.activation_bytes)
    weight = told.largest_tensor * size
    assert live.peak <= 1.02 * (kept + told.boundary_bytes + max(needs, needs / 2 + weight))
    assert live.peak >= 0.98 * (kept + told.boundary_bytes + needs)


def test_first_loss_is_that_of_a_guess() -> None:
    dims = load_preset("llama-tiny")
    units = [build_unit(dims, index, TensorGroup(), *PLACE, seed=0) for index in range(len(Llama.units(dims)))]
    batch = text(dims)
    loss = loss_of(units, batch) / batch.labels_BT.numel()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(dims.vocab), rel=0.03)


def test_tied_units_of_one_rank_share_one_parameter() -> None:
    units = build(small(tie_embeddings=True))
    ends = [next(t for t in units[i].tensors() if t.name == EMBEDDING) for i in (0, -1)]
    assert ends[0].parameter is ends[1].parameter
    apart = [build_unit(small(tie_embeddings=True), i, TensorGroup(), *PLACE, seed=3) for i in (0, 5)]
    first, last = (next(t for t in unit.tensors() if t.name == EMBEDDING).parameter for unit in apart)
    assert first is not last
    assert torch.equal(first, last)


def test_tensors_of_a_unit_are_those_that_the_architecture_declares() -> None:
    for index, unit in enumerate(build(small(qkv_bias=True))):
        declared = {spec.name: spec.layout for spec in Llama.tensors(small(qkv_bias=True), index, 1).values()}
        assert {tensor.name: tensor.layout for tensor in unit.tensors()} == declared


def test_alone_a_unit_leaves_no_trace_of_the_group() -> None:
    x = torch.ones(2, requires_grad=True)
    group = TensorGroup()
    assert group.copy_in(x) is x
    assert group.reduce_out(x) is x
    assert group.all_reduce_sum(x) is x


def test_unfilled_units_have_the_same_tensors() -> None:
    unit = build_unit(small(), 1, TensorGroup(), Operators(), torch.float32, torch.device("meta"), seed=0, fill=False)
    assert {parameter.device.type for parameter in unit.parameters()} == {"meta"}


def test_plain_positions_are_the_default() -> None:
    units, batch = build(small()), text(small())
    length = batch.tokens_BT.shape[1]
    told = Batch(batch.tokens_BT, batch.labels_BT, torch.arange(length))
    far = Batch(batch.tokens_BT, batch.labels_BT, 2 * torch.arange(length))
    assert torch.equal(loss_of(units, told), loss_of(units, batch))
    assert not torch.allclose(loss_of(units, far), loss_of(units, batch), rtol=1e-7)
