"""What a job trains of its model: by which names, with which adapters, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from backends.operators import Operators
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.architecture import Architecture
from hetero.models.batch import Batch
from hetero.models.errors import ModelError
from hetero.models.registry import architecture
from hetero.models.tuning import LoraOptions, Tuning, trainable
from hetero.models.unit_module import UnitModule, build_unit
from tests.tiny_models import tiny
from tests.unit.hetero.models.whole_model import small

LENGTH = 32
ALL = LoraOptions(rank=4, alpha=8.0)


def _model(tuning: Tuning, **changes: Any) -> Architecture:
    return architecture(small(**changes), tuning)


def _trains(tuning: Tuning, **changes: Any) -> frozenset[str]:
    model = _model(tuning, **changes)
    specs = [spec for unit in range(len(model.units)) for spec in model.tensors(unit, 1).values()]
    found = frozenset(spec.name for spec in specs if spec.trains)
    assert found == trainable(model, tuning)
    assert model.frozen == {spec.name for spec in specs} - found
    return found


@pytest.mark.parametrize(
    ("pattern", "stays"),
    [
        ("units.3.q.weight", {"units.3.q.weight"}),
        ("embedding*", {"units.0.embedding.weight"}),
        ("*.down.weight", {"units.2.down.weight", "units.4.down.weight"}),
        ("q.weight", {"units.1.q.weight", "units.3.q.weight"}),
        ("mlp.norm*", {"units.2.norm.weight", "units.4.norm.weight"}),
        ("head*", {"units.5.norm.weight", "units.5.head.weight"}),
        ("units.[12].norm.*", {"units.1.norm.weight", "units.2.norm.weight"}),
    ],
)
def test_tensors_are_frozen_by_the_names_that_people_know(pattern: str, stays: set[str]) -> None:
    assert _model(Tuning(freeze=(pattern,))).frozen == stays
    assert _trains(Tuning(freeze=(pattern,))) == _trains(Tuning()) - stays


def test_a_tied_tensor_is_frozen_by_either_of_its_names() -> None:
    assert _model(Tuning(freeze=("embedding*",)), tie_embeddings=True).frozen == {"units.0.embedding.weight"}
    assert _model(Tuning(freeze=("head.weight",)), tie_embeddings=True).frozen == {"units.0.embedding.weight"}


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe"])
@pytest.mark.parametrize("tuning", [Tuning(), Tuning(freeze=("embedding*",)), Tuning(lora=LoraOptions())])
def test_what_no_gradient_reaches_is_frozen_whatever_trains(kind: str, tuning: Tuning) -> None:
    """Weight decay would change a router's correction."""
    plain, tuned = architecture(tiny(kind)), architecture(tiny(kind), tuning)
    never = {name for name in (spec.name for spec in plain.tensors(4, 1).values()) if "correction" in name}
    assert plain.frozen == never
    assert len(never) == 1
    assert never <= tuned.frozen
    assert not never & trainable(tuned, tuning)
    assert plain.workload(LENGTH, 1, "float32").units[4].frozen == 8
    everything = LoraOptions(train_also=("*",))
    assert architecture(tiny(kind), Tuning(lora=everything)).frozen == never
    with pytest.raises(ModelError, match="never trains") as found:
        architecture(tiny(kind), Tuning(lora=LoraOptions(train_also=("*correction*",))))
    assert found.value.key == "train.lora.train_also"


@pytest.mark.parametrize(
    ("tuning", "key", "says"),
    [
        (Tuning(freeze=("embeding.weight",)), "train.freeze", "did you mean embedding.weight"),
        (Tuning(freeze=("units.9.*",)), "train.freeze", "no tensor"),
        (Tuning(freeze=("*",)), "train.freeze", "all that would train"),
        (Tuning(lora=ALL, freeze=("*.lora_?",)), "train.freeze", "all that would train"),
        (Tuning(lora=LoraOptions(targets=("q", "qv"))), "train.lora.targets", "no projection"),
        (Tuning(lora=LoraOptions(targets=("head",))), "train.lora.targets", "no projection"),
        (Tuning(lora=LoraOptions(train_also=("nrm*",))), "train.lora.train_also", "no tensor"),
    ],
)
def test_names_that_are_nobodys_are_refused(tuning: Tuning, key: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as found:
        _model(tuning)
    assert found.value.key == key


def test_with_adapters_they_alone_train_and_what_is_named_beside() -> None:
    found = _trains(Tuning(lora=LoraOptions(targets=("q", "down"), train_also=("head.norm*",)), freeze=("units.1.*",)))
    adapters = {f"units.{unit}.lora_{factor}" for unit in ("3.q", "2.down", "4.down") for factor in "ab"}
    assert found == adapters | {"units.5.norm.weight"}


def test_units_that_are_tuned_otherwise_are_of_kinds_of_their_own() -> None:
    kinds = [unit.kind for unit in _model(Tuning(freeze=("units.3.*",))).units]
    assert kinds == ["embedding", "attention", "mlp", "attention 2", "mlp", "head"]


@pytest.mark.parametrize("rows", [False, True])
def test_adapters_lie_as_their_weights_do(rows: bool) -> None:
    """The factor on the side that ranks share out is cut as the weight is; of the other, each has a gradient's part."""
    unit = _model(Tuning(lora=ALL), kv_heads=2).tensors(1, 4, rows)
    layouts = {name: spec.layout for name, spec in unit.items()}
    assert [layouts["q.lora_b"].region(rank)[0] for rank in range(4)] == [(16 * r, 16 * r + 16) for r in range(4)]
    assert [layouts["k.lora_b"].region(rank)[0] for rank in range(4)] == [(0, 8), (0, 8), (8, 16), (8, 16)]
    assert [layouts["o.lora_a"].region(rank)[1] for rank in range(4)] == [(16 * r, 16 * r + 16) for r in range(4)]
    whole = {layouts[name] for name in ("q.lora_a", "k.lora_a", "o.lora_b")}
    assert {(len(one.replica_groups()), one.gradients) for one in whole} == {(1, "summed")}
    assert layouts["k.lora_b"].gradients == layouts["k.weight"].gradients == "summed"
    alone = _model(Tuning(lora=ALL)).tensors(1, 1)
    assert {alone[name].layout.gradients for name in ("q.lora_a", "o.lora_b")} == {"equal"}


def _builder() -> Builder:
    return Builder(TensorGroup(), Operators(), seed=3)


def _unit(index: int, tuning: Tuning, weight_gradients: WeightGradients | None = None) -> UnitModule:
    builder = replace(_builder(), weight_gradients=weight_gradients or WeightGradients())
    unit = build_unit(small(), index, builder, tuning=tuning)
    with torch.no_grad():
        for tensor in unit.tensors():
            if tensor.name.endswith("lora_b"):
                tensor.parameter.copy_(torch.linspace(0.0, 1.0, tensor.parameter.numel()).view_as(tensor.parameter))
    return unit


def _given() -> tuple[torch.Tensor, Batch]:
    tokens_BT = torch.arange(LENGTH)[None] % 257
    return torch.randn(1, LENGTH, 64, generator=torch.Generator().manual_seed(0)), Batch(tokens_BT, tokens_BT)


@pytest.mark.parametrize("index", [1, 2])
def test_an_adapter_adds_what_its_factors_make_of_the_weight(index: int) -> None:
    x_BTD, batch = _given()
    adapted, plain = _unit(index, Tuning(lora=ALL)), _unit(index, Tuning())
    before = plain({"x_BTD": x_BTD}, batch)["x_BTD"]
    tensors = {tensor.name: tensor.parameter for tensor in adapted.tensors()}
    with torch.no_grad():
        for tensor in plain.tensors():
            stem = tensor.name.removesuffix(".weight")
            if f"{stem}.lora_a" in tensors:
                tensor.parameter.add_(2.0 * tensors[f"{stem}.lora_b"] @ tensors[f"{stem}.lora_a"])
    found, wanted = (unit({"x_BTD": x_BTD}, batch)["x_BTD"] for unit in (adapted, plain))
    torch.testing.assert_close(found, wanted)
    assert (wanted - before).abs().max() > 0.01


def test_a_run_begins_where_the_model_without_adapters_does() -> None:
    x_BTD, batch = _given()
    units = [build_unit(small(), 1, _builder(), tuning=tuning) for tuning in (Tuning(lora=ALL), Tuning())]
    first, plain = (unit({"x_BTD": x_BTD}, batch)["x_BTD"] for unit in units)
    assert torch.equal(first, plain)


TUNED = {
    "adapters": Tuning(lora=ALL),
    "adapters of two": Tuning(lora=LoraOptions(rank=4, targets=("q", "v"))),
    "one weight frozen": Tuning(freeze=("q.weight", "down.weight", "head.weight")),
}


@pytest.mark.parametrize("index", [1, 2, 5])
@pytest.mark.parametrize("tuning", TUNED.values(), ids=TUNED)
def test_what_is_frozen_has_neither_gradients_nor_products_for_them(tuning: Tuning, index: int) -> None:
    weight_gradients = WeightGradients()
    unit = _unit(index, tuning, weight_gradients)
    x_BTD, batch = _given()
    (out,) = unit({"x_BTD": x_BTD.requires_grad_()}, batch).values()
    with weight_gradients.keeping() as pairs:
        out.backward(torch.ones_like(out))
    told = architecture(small(), tuning).workload(LENGTH, 1, "float32").units[index]
    assert told.weight_flops == pytest.approx(sum(2.0 * LENGTH * one.weight_ED.numel() for one in pairs))
    tensors = {t.untyped_storage().data_ptr(): t for one in pairs for t in (one.x_ND, one.gradient_NE)}
    assert sum(t.untyped_storage().nbytes() for t in tensors.values()) <= told.pairs.on_rank(1)
    for pair in pairs:
        weight_gradients.make(pair)
    frozen = architecture(small(), tuning).frozen
    made = {tensor.name for tensor in unit.tensors() if tensor.parameter.grad is not None}
    assert made == {tensor.name for tensor in unit.tensors()} - frozen
    parameters = {tensor.name: tensor.parameter.numel() for tensor in unit.tensors()}
    assert told.frozen == sum(size for name, size in parameters.items() if name in frozen)
    assert told.parameters == sum(parameters.values())
    products = sum(size for name, size in parameters.items() if name in frozen and "norm" not in name)
    assert told.frozen_flops == pytest.approx(2.0 * LENGTH * products)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("index", [1, 2])
def test_no_more_is_kept_than_is_told(index: int, recompute: Any) -> None:
    tuning = Tuning(lora=ALL)
    unit = build_unit(small(), index, _builder(), recompute, tuning)
    x_BTD, batch = _given()
    x_BTD.requires_grad_()
    unit({"x_BTD": x_BTD}, batch)  # its angles are made once
    with LiveBytes() as live:
        (out,) = unit({"x_BTD": x_BTD}, batch).values()
        kept = live.now - out.nbytes
    told = architecture(small(), tuning).workload(LENGTH, 1, "float32").units[index].under(recompute)
    given = x_BTD.nbytes  # which was there before
    assert 0.8 * told.activation_bytes <= kept + given <= 1.02 * told.activation_bytes
