"""Latent attention keeps what it tells, and leaves what it tells to weight gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder
from hetero.layers.frequencies import Rotary
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.spec import Normal
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.parts.latent import LatentAttention
from hetero.models.parts.norm import RMSNorm
from hetero.models.unit import Unit
from hetero.models.unit_module import UnitModule

D, STD = 64, Normal(0.3)
TURNING = Rotary.plain(1e4, 8, interleaved=True)
SMALL = LatentAttention(D, 4, 0, 24, 12, TURNING, 16, 20**-0.5, STD, STD)
PRESSED = replace(SMALL, query_latent=28, value=20)
EVERY = pytest.mark.parametrize("part", [SMALL, PRESSED], ids=["narrow values", "pressed queries"])


def _unit(part: LatentAttention) -> Unit:
    return Unit("attention", (RMSNorm(D, 1e-5), part), residual=True)


def _batch(length: int) -> Batch:
    return Batch(torch.zeros(1, length, dtype=torch.int64), torch.zeros(1, length, dtype=torch.int64))


@EVERY
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_bytes_are_those_of_the_tensors_that_are_there(
    part: LatentAttention, dtype: torch.dtype, recompute: Recompute
) -> None:
    """What is kept to a fiftieth; what backward needs, to what is alive of small things meanwhile."""
    unit, length, size = _unit(part), 128, dtype.itemsize
    made = UnitModule(Builder(TensorGroup(), Operators(), dtype), unit, unit.tensors(1), recompute)
    x_BTD = torch.randn(1, length, D, dtype=dtype, requires_grad=True)
    batch = _batch(length)
    made({"x_BTD": x_BTD}, batch)  # its angles are made once
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        (out,) = made({"x_BTD": x_BTD}, batch).values()
        kept = live.now
        gradient = torch.ones_like(out)
        live.peak = live.now
        out.backward(gradient)
    told = unit.work(length, size, size * length * D).under(recompute)
    wanted = told.activation_bytes + told.boundary_bytes
    wanted -= 0 if recompute == "none" and size < 4 else size * length * D
    assert kept == pytest.approx(wanted, rel=0.02)
    needs = told.remade.on_rank(1) + told.backward_bytes
    assert 0.95 * live.peak <= kept + told.boundary_bytes + needs <= 1.15 * live.peak


@EVERY
def test_what_waits_for_weight_gradients_is_told(part: LatentAttention) -> None:
    unit, length, weight_gradients = _unit(part), 32, WeightGradients()
    builder = Builder(TensorGroup(), Operators(), weight_gradients=weight_gradients)
    made = UnitModule(builder, unit, unit.tensors(1), "none")
    x_BTD = torch.randn(1, length, D, requires_grad=True)
    (out,) = made({"x_BTD": x_BTD}, _batch(length)).values()
    with weight_gradients.keeping() as pairs:
        out.backward(torch.ones_like(out))
    kept = {t.untyped_storage().data_ptr(): t for one in pairs for t in (one.x_ND, one.gradient_NE)}
    told = unit.work(length, 4, 4 * length * D)
    bytes_ = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert bytes_ == pytest.approx(told.pairs.on_rank(1), rel=0.02)
    assert told.weight_flops == sum(2.0 * length * one.weight_ED.numel() for one in pairs)
