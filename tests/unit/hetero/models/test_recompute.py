"""A unit that recomputes trains to the same bits, by the products that it tells; another dropout is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.parts.head import Head
from hetero.models.registry import architecture
from hetero.models.unit_module import UnitModule, build_unit
from tests.unit.hetero.models.whole_model import logical_tensors, loss_of, small, text

DIMS = small(qkv_bias=True, tie_embeddings=True)
WAYS: tuple[Recompute, ...] = get_args(Recompute)


def _build(
    recompute: Recompute, dtype: torch.dtype = torch.float32, operators: Operators | None = None
) -> list[UnitModule]:
    builder = Builder(TensorGroup(), operators or Operators(), dtype, seed=3)
    return [build_unit(DIMS, unit, builder, recompute) for unit in range(len(architecture(DIMS).units))]


def _train(units: list[UnitModule], sequences: int = 2) -> dict[str, torch.Tensor]:
    loss = loss_of(units, text(DIMS, sequences))
    loss.backward()
    found = {name: tensor.parameter.grad for name, tensor in logical_tensors(units).items()}
    return {**found, "loss": loss.detach()}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_loss_and_gradients_have_the_same_bits(recompute: Recompute, dtype: torch.dtype) -> None:
    plain, found = _train(_build("none", dtype)), _train(_build(recompute, dtype))
    assert plain.keys() == found.keys()
    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_another_dropout_in_the_second_run_is_seen(recompute: Recompute) -> None:
    """Chance is no part of an operator today. Where it is, a second run must draw what the first one drew."""

    def dropping(gate_BTF: torch.Tensor, up_BTF: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.silu(gate_BTF) * up_BTF, 0.1)

    def trained(way: Recompute) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return _train(_build(way, operators=replace(Operators(), swiglu=dropping)))

    plain, found = trained("none"), trained(recompute)
    assert torch.equal(plain["loss"], found["loss"]), "the first runs drew the same"
    name = "units.2.down.weight"
    assert torch.linalg.norm(plain[name] - found[name]) > 0.1 * torch.linalg.norm(plain[name])


@pytest.mark.parametrize("slices", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("recompute", WAYS)
def test_products_are_as_many_as_told(recompute: Recompute, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for attention's scores and values, of which plain torch computes the whole square, and more than twice."""
    monkeypatch.setattr(Head, "slices", lambda *_: slices)
    units, batch = _build(recompute), text(DIMS, 1)
    told = architecture(DIMS).workload(batch.tokens_BT.shape[1], 1, "float32").units
    boundary = {}
    for unit, work in zip(units, told, strict=True):
        again = work.under(recompute)
        inputs = {name: x.detach().requires_grad_() for name, x in boundary.items()}
        with FlopCounterMode(display=False) as forward:
            boundary = unit(inputs, batch)
        with FlopCounterMode(display=False) as backward:
            sum(x.sum() for x in boundary.values()).backward()
        if work.kind != "attention":
            assert forward.get_total_flops() == again.forward_flops
            assert backward.get_total_flops() == 2 * again.forward_flops + again.remade_flops
