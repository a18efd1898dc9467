"""Models out of parts: units of a kind are alike, and a tie is one tensor; families are found by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backends.operators import Operators
from hetero.layers.builder import Builder
from hetero.layers.frequencies import Rotary
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.spec import Normal
from hetero.models.architecture import Architecture, decoder
from hetero.models.batch import Batch
from hetero.models.errors import ModelError
from hetero.models.parts.attention import Attention
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.head import Head
from hetero.models.parts.mlp import MLP
from hetero.models.parts.norm import RMSNorm
from hetero.models.parts.part import Part
from hetero.models.registry import architecture, family_names
from hetero.models.unit import Unit
from hetero.models.unit_module import UnitModule
from tests.unit.hetero.models.whole_model import small

STD = Normal(0.02)
NORM, SWIGLU = RMSNorm(8, 1e-5), MLP(8, 12, STD, STD)
ATTENTION = Attention(8, 2, 1, 4, Rotary.plain(1e4, 4), STD, STD, qkv_bias=True)
EMBEDDING, HEAD = Embedding(20, 8, STD), Head(20, 8, STD)


def _model(*mlps: MLP, tied: bool = False) -> Architecture:
    return decoder(EMBEDDING, [{"mlp": (NORM, mlp)} for mlp in mlps], (NORM, HEAD), tied)


def test_a_model_is_a_list_of_layers_out_of_parts() -> None:
    model = _model(SWIGLU, SWIGLU)
    assert [unit.kind for unit in model.units] == ["embedding", "mlp", "mlp", "head"]
    assert list(model.tensors(2, 1)) == ["norm.weight", "gate.weight", "up.weight", "down.weight"]
    assert model.tensors(2, 1)["up.weight"].name == "units.2.up.weight"
    assert model.parameter_count == 2 * 20 * 8 + 2 * (3 * 8 * 12 + 8) + 8


def test_a_tied_tensor_has_its_owners_name_and_is_counted_once() -> None:
    model = _model(SWIGLU, tied=True)
    assert model.tied == ((0, 2),)
    assert model.tensors(2, 1)["head.weight"].name == "units.0.embedding.weight"
    assert model.parameter_count == _model(SWIGLU).parameter_count - 20 * 8


def test_units_of_a_kind_are_alike() -> None:
    """A kind is timed and counted once."""
    with pytest.raises(ValueError, match="'mlp' are not alike"):
        _model(SWIGLU, replace(SWIGLU, ffn=16))


@pytest.mark.parametrize(
    ("parts", "ties"), [((NORM, SWIGLU, NORM), {}), ((NORM, HEAD), {"heat.weight": (0, "embedding.weight")})]
)
def test_tensors_of_a_unit_have_names_of_their_own(parts: tuple[Part, ...], ties: dict[str, tuple[int, str]]) -> None:
    """Two of one name would be one tensor, and a tie to no tensor would be none."""
    with pytest.raises(ValueError, match="names of their own"):
        Unit("any", parts, ties=ties)


@pytest.mark.parametrize("parts", [(NORM, SWIGLU), (SWIGLU, NORM), (SWIGLU,), (SWIGLU, NORM, ATTENTION)])
def test_bytes_are_true_of_parts_in_any_order(parts: tuple[Part, ...]) -> None:
    """Who reads a part's result keeps it, and a part's backward finds what those behind it kept gone."""
    length, unit = 256, Unit("any", parts, residual=True)
    specs = unit.tensors(1)
    module = UnitModule(Builder(TensorGroup(), Operators()), unit, specs)
    x_BTD = torch.randn(1, length, 8, requires_grad=True)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    batch = Batch(torch.zeros(1, length), torch.zeros(1, length))
    module({"x_BTD": x_BTD}, batch)  # its angles are made once
    with LiveBytes() as live:
        (out,) = module({"x_BTD": x_BTD}, batch).values()
        kept, gradient = live.now, torch.ones_like(out)
        live.peak = live.now
        out.backward(gradient)
    boundary = x_BTD.numel() * 4
    told = unit.work(length, 4, boundary)
    assert kept == pytest.approx(told.activation_bytes, rel=0.02)
    needs = max(told.backward_bytes, told.whole_bytes + told.last_bytes - told.activation_bytes)
    assert live.peak == pytest.approx(kept + boundary + needs, rel=0.04)


def test_a_family_is_a_file_and_an_unknown_one_says_what_is_near() -> None:
    assert "llama" in family_names()
    assert architecture(small()) is architecture(small())
    with pytest.raises(ModelError, match="did you mean llama"):
        architecture(small(family="lama"))
