"""Models out of parts: units of a kind are alike, and a tie is one tensor; families are found by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hetero.layers.spec import Normal
from hetero.models.architecture import Architecture, decoder
from hetero.models.errors import ModelError
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.head import Head
from hetero.models.parts.mlp import SwiGLU
from hetero.models.parts.norm import RMSNorm
from hetero.models.registry import architecture, family_names
from tests.unit.hetero.models.whole_model import small

STD = Normal(0.02)
NORM, MLP = RMSNorm(8, 1e-5), SwiGLU(8, 12, STD, STD)
EMBEDDING, HEAD = Embedding(20, 8, STD), Head(20, 8, STD)


def _model(*mlps: SwiGLU, tied: bool = False) -> Architecture:
    return decoder(EMBEDDING, [{"mlp": (NORM, mlp)} for mlp in mlps], (NORM, HEAD), tied)


def test_a_model_is_a_list_of_layers_out_of_parts() -> None:
    model = _model(MLP, MLP)
    assert [unit.kind for unit in model.units] == ["embedding", "mlp", "mlp", "head"]
    assert list(model.tensors(2, 1)) == ["norm.weight", "gate.weight", "up.weight", "down.weight"]
    assert model.tensors(2, 1)["up.weight"].name == "units.2.up.weight"
    assert model.parameter_count == 2 * 20 * 8 + 2 * (3 * 8 * 12 + 8) + 8


def test_a_tied_tensor_has_its_owners_name_and_is_counted_once() -> None:
    model = _model(MLP, tied=True)
    assert model.tied == ((0, 2),)
    assert model.tensors(2, 1)["head.weight"].name == "units.0.embedding.weight"
    assert model.parameter_count == _model(MLP).parameter_count - 20 * 8


def test_units_of_a_kind_are_alike() -> None:
    """A kind is timed and counted once."""
    with pytest.raises(ValueError, match="'mlp' are not alike"):
        _model(MLP, replace(MLP, ffn=16))


def test_a_norm_behind_a_part_needs_its_room_while_all_is_kept() -> None:
    before = decoder(EMBEDDING, [{"mlp": (NORM, MLP)}], (NORM, HEAD), tied=False).workload(4, 1, "float32").units[1]
    after = decoder(EMBEDDING, [{"mlp": (MLP, NORM)}], (NORM, HEAD), tied=False).workload(4, 1, "float32").units[1]
    room = NORM.work(4, 4).whole_backward_bytes
    assert (before.last_bytes, before.backward_bytes) == (room, MLP.work(4, 4).backward_bytes)
    assert (after.last_bytes, after.backward_bytes) == (0, max(room, MLP.work(4, 4).backward_bytes))
    assert after.activation_bytes == before.activation_bytes


def test_a_family_is_a_file_and_an_unknown_one_says_what_is_near() -> None:
    assert "llama" in family_names()
    assert architecture(small()) is architecture(small())
    with pytest.raises(ModelError, match="did you mean llama"):
        architecture(small(family="lama"))
