"""What every family of models owes the planner and the ranks: told once, and as it is."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from bridge.layout.layout import LayoutError
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.architecture import Architecture
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.parts import head
from hetero.models.registry import OF_DIMENSIONS, architecture
from hetero.models.unit_module import build_unit
from tests.unit.hetero.models.whole_model import build, logical_tensors, loss_of, small, text

RECOMPUTE: tuple[Recompute, ...] = get_args(Recompute)
VARIED: list[dict[str, Any]] = [{}, {"tie_embeddings": True}, {"qkv_bias": True, "kv_heads": 2}]

pytestmark = pytest.mark.parametrize("family", OF_DIMENSIONS)


def _builder(**changes: Any) -> Builder:
    return Builder(TensorGroup(), Operators(), **changes)


def _model(family: str, **changes: Any) -> tuple[Dimensions, Architecture]:
    dims = small(family=family, **changes)
    return dims, architecture(dims)


@pytest.mark.parametrize("changes", VARIED)
def test_modules_hold_the_declared_tensors(family: str, changes: dict[str, Any]) -> None:
    dims, model = _model(family, **changes)
    for index, unit in enumerate(build(dims)):
        declared = {spec.name: spec.layout for spec in model.tensors(index, 1).values()}
        assert {tensor.name: tensor.layout for tensor in unit.tensors()} == declared


@pytest.mark.parametrize("changes", VARIED)
def test_counts_agree_with_the_modules_and_the_workload(family: str, changes: dict[str, Any]) -> None:
    dims, model = _model(family, **changes)
    built = sum(tensor.parameter.numel() for tensor in logical_tensors(build(dims)).values())
    work = model.workload(seq_len=32, global_batch=4, precision="bfloat16")
    assert model.parameter_count == built == sum(unit.parameters for unit in work.units)
    assert [unit.kind for unit in work.units] == [unit.kind for unit in model.units]
    assert work.tied == model.tied
    assert {unit.boundary_bytes for unit in work.units[:-1]} == {32 * sum(model.boundary.values()) * 2}


def test_tied_units_of_one_rank_share_one_parameter(family: str) -> None:
    dims, model = _model(family, tie_embeddings=True)
    ((owner, other),) = model.tied
    (name,) = {spec.name for spec in model.tensors(owner, 1).values()} & {
        spec.name for spec in model.tensors(other, 1).values()
    }
    units, apart = build(dims), [build_unit(dims, index, _builder(seed=3)) for index in (owner, other)]
    ends = [next(t for t in units[index].tensors() if t.name == name) for index in (owner, other)]
    assert ends[0].parameter is ends[1].parameter
    first, last = (next(t for t in unit.tensors() if t.name == name).parameter for unit in apart)
    assert first is not last
    assert torch.equal(first, last)


def test_what_is_illegal_is_said_and_refused(family: str) -> None:
    _, model = _model(family)
    for tp in range(1, 40):
        reason = model.legal_tp(tp)
        for index in range(len(model.units)):
            if reason is None:
                assert {spec.layout.size for spec in model.tensors(index, tp).values()} == {tp}
            else:
                with pytest.raises(LayoutError, match=f"^tp = {tp}; "):
                    model.tensors(index, tp)
    assert model.legal_tp(1) is None


def test_the_first_loss_is_that_of_a_guess(family: str) -> None:
    dims, model = _model(family, hidden=128)
    units = [build_unit(dims, index, _builder()) for index in range(len(model.units))]
    batch = text(dims)
    loss = loss_of(units, batch) / batch.counted
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(dims.vocab), rel=0.03)


def test_unfilled_units_have_the_same_tensors(family: str) -> None:
    dims, model = _model(family)
    for index in range(len(model.units)):
        unit = build_unit(dims, index, _builder(device=torch.device("meta"), seed=None))
        assert {parameter.device.type for parameter in unit.parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_bytes_are_those_of_the_tensors_that_are_there(
    family: str, kv_heads: int, dtype: torch.dtype, recompute: Recompute
) -> None:
    """What each kind of unit keeps, and what it needs while it runs, within a fiftieth of a count of live tensors."""
    dims, model = _model(family, vocab=1500, ffn=176, heads=4, kv_heads=kv_heads)
    for kind in {unit.kind for unit in model.units}:
        _check_bytes(dims, model, kind, dtype, recompute)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slices", [3, 16])
def test_bytes_of_a_head_whose_logits_are_made_in_slices(
    family: str, slices: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is there than a slice of logits takes, forward or backward."""
    dims, model = _model(family, vocab=6000, ffn=176, heads=4)
    whole = 128 * dims.vocab * 4
    monkeypatch.setattr(head, "SLICE_BYTES", whole // slices)
    told = model.workload(128, 1, "float32").units[-1]
    assert max(told.activation_bytes, told.forward_bytes, told.remade.split + told.backward_bytes) < whole / 2
    assert told.remade_flops == told.forward_flops
    _check_bytes(dims, model, "head", dtype)


def _check_bytes(
    dims: Dimensions, model: Architecture, kind: str, dtype: torch.dtype, recompute: Recompute = "none"
) -> None:
    length, index = 128, [unit.kind for unit in model.units].index(kind)
    unit = build_unit(dims, index, _builder(dtype=dtype), recompute)
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
    size = dtype.itemsize
    told = model.workload(length, 1, str(dtype).removeprefix("torch.")).units[index].under(recompute)
    given = 0 if recompute == "none" and size < 4 else x_BTD.numel() * size  # it keeps what was there before
    given = given if told.last_bytes else 0
    assert kept == pytest.approx(told.activation_bytes - given + told.boundary_bytes, rel=0.02), kind
    room = told.boundary_bytes if told.activation_bytes else 0  # beside the result, which an embedding makes at once
    assert forward == pytest.approx(kept + room + told.forward_bytes, rel=0.02 if recompute == "none" else 0.09), kind
    remade = told.remade.on_rank(1)
    needs = max(remade + told.backward_bytes, told.whole_bytes + told.last_bytes - told.activation_bytes)
    weight = 0 if told.weight_flops and size == 4 else told.largest_tensor * size  # products add to the sum itself
    short = 1.06 if recompute == "selective" else 1.02  # a norm's result made again, beside gradients of what reads it
    assert live.peak <= short * (kept + told.boundary_bytes + max(needs, remade + (needs - remade) / 2 + weight)), kind
    assert live.peak >= 0.98 * (kept + told.boundary_bytes + needs), kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_waits_for_weight_gradients_is_what_the_workload_tells(family: str, dtype: torch.dtype) -> None:
    """Pairs of inputs and gradients, each tensor once, and the products that are made of them."""
    dims, model = _model(family, vocab=1500, ffn=176, heads=4, kv_heads=2)
    work, length = model.workload(32, 1, str(dtype).removeprefix("torch.")).units, 32
    for index in {unit.kind: number for number, unit in enumerate(model.units)}.values():
        weight_gradients = WeightGradients()
        unit = build_unit(dims, index, _builder(dtype=dtype, weight_gradients=weight_gradients))
        tokens_BT = torch.zeros(1, length, dtype=torch.int64)
        x_BTD = torch.randn(1, length, dims.hidden, dtype=dtype, requires_grad=True)
        (out,) = unit({"x_BTD": x_BTD}, Batch(tokens_BT, tokens_BT)).values()
        with weight_gradients.keeping() as pairs:
            out.backward(torch.ones_like(out))
        tensors = {t.untyped_storage().data_ptr(): t for one in pairs for t in (one.x_ND, one.gradient_NE)}
        told, bytes_ = work[index], sum(t.untyped_storage().nbytes() for t in tensors.values())
        assert bytes_ == pytest.approx(told.pairs.on_rank(1), rel=0.02), told.kind
        assert told.weight_flops == sum(2.0 * length * one.weight_ED.numel() for one in pairs), told.kind
