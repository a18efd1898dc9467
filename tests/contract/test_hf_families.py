"""Every type of Hugging Face's models that there is a family of: what transformers computes and stores of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.norm import RMSNorm
from hetero.models.registry import architecture, family_names, weights
from hetero.models.unit import STREAM
from hetero.models.unit_module import UnitModule, build_unit
from tests.tiny_hf import gradient, random_model
from tests.tiny_models import TINY, tiny
from tests.unit.hetero.models.whole_model import assert_equal_gradients, build, logical_tensors, loss_of, text

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", family_names())]
WEIGHTS = "model.safetensors"


def _wider(kind: str) -> HfModel:
    """As large as bytes are counted of, its heads as they are."""
    if kind == "gpt2":
        return tiny(kind, n_embd=64, n_inner=176, n_head=8, vocab_size=1500, n_positions=128)
    alone = TINY[kind]["num_key_value_heads"] == TINY[kind]["num_attention_heads"]
    heads = {"num_attention_heads": 8} | ({"num_key_value_heads": 8} if alone else {})
    return tiny(kind, hidden_size=64, intermediate_size=176, vocab_size=1500, **heads)


def _taken(tensors: dict[str, torch.Tensor], name: str, slices: tuple[slice, ...]) -> torch.Tensor:
    assert all(one.step is None for one in slices)
    return tensors[name][slices]


@torch.no_grad()
def _fill(units: list[UnitModule], model: HfModel, folder: Path) -> None:
    """With a directory's values; all tensors there are known, and no other is."""
    stored, there = load_file(folder / WEIGHTS), weights(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items() if name not in there.ties}
    assert shapes == there.foreign
    for name, tensor in logical_tensors(units).items():
        found = there.read(name, tensor.layout.region(0), lambda *asked: _taken(stored, *asked))
        tensor.parameter.copy_(found)


def _as_theirs(model: HfModel, logical: dict[str, torch.Tensor], folder: Path) -> dict[str, np.ndarray]:
    """By transformers' own names, which reads them from a directory of ours as if they were weights."""
    from transformers import AutoModelForCausalLM

    there = weights(model)
    save_file({name: there.write(name, logical.__getitem__) for name in there.foreign}, folder / WEIGHTS)
    found, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return {name: np.asarray(parameter.detach()) for name, parameter in found.named_parameters()}


def test_loss_and_gradients_equal_transformers(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    theirs, units, batch = random_model(model), build(model), text(model)
    theirs.save_pretrained(tmp_path)
    assert architecture(HfModel.of(json.loads((tmp_path / "config.json").read_text()))) == architecture(model)
    _fill(units, model, tmp_path)

    loss = loss_of(units, batch)
    loss.backward()
    logits_BTV = theirs(batch.tokens_BT).logits
    wanted = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum")
    wanted.backward()

    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    gradients = {name: gradient(tensor.parameter) for name, tensor in logical_tensors(units).items()}
    found = _as_theirs(model, gradients, tmp_path)
    wanted_gradients = {name: np.asarray(gradient(parameter)) for name, parameter in theirs.named_parameters()}
    assert_equal_gradients(found, wanted_gradients, 1e-5)


def test_the_map_gives_back_every_bit(kind: str) -> None:
    model = tiny(kind)
    found, told = weights(model), architecture(model)
    numbers = {name: torch.randn(shape) for name, shape in found.foreign.items()}
    shapes = {
        spec.name: spec.layout.shape for unit in range(len(told.units)) for spec in told.tensors(unit, 1).values()
    }
    logical = {
        name: found.read(name, tuple((0, extent) for extent in shape), lambda *asked: _taken(numbers, *asked))
        for name, shape in shapes.items()
    }
    assert {name: tensor.shape for name, tensor in logical.items()} == shapes
    for name, tensor in numbers.items():
        assert torch.equal(found.write(name, logical.__getitem__), tensor), name


@pytest.mark.parametrize(
    "recompute", ["none", *(pytest.param(way, marks=pytest.mark.exhaustive) for way in ("selective", "full"))]
)
def test_bytes_are_those_of_the_tensors_that_are_there(kind: str, recompute: Recompute) -> None:
    """What each kind of unit keeps, within a fiftieth, and what its backward needs."""
    model, length, dtype = _wider(kind), 128, torch.bfloat16
    told = architecture(model)
    for unit_kind, index in {unit.kind: number for number, unit in enumerate(told.units)}.items():
        unit = build_unit(model, index, Builder(TensorGroup(), Operators(), dtype), recompute)
        tokens_BT = torch.zeros(1, length, dtype=torch.int64)
        x_BTD, batch = torch.randn(1, length, 64, dtype=dtype, requires_grad=True), Batch(tokens_BT, tokens_BT)
        unit({STREAM: x_BTD}, batch)  # its angles are made once
        for parameter in unit.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with LiveBytes() as live:
            (out,) = unit({STREAM: x_BTD}, batch).values()
            kept, gradient = live.now, torch.ones_like(out)
            live.peak = live.now
            out.backward(gradient)
        work, first = told.workload(length, 1, "bfloat16").units[index].under(recompute), told.units[index].parts[0]
        made = isinstance(first, Embedding) or (isinstance(first, RMSNorm) and recompute == "none")
        before = 0 if made else x_BTD.numel() * dtype.itemsize  # what came in is kept, and was there before
        predicted = work.activation_bytes - before + work.boundary_bytes
        assert kept == pytest.approx(predicted, rel=0.02), unit_kind
        needs = work.remade.on_rank(1) + work.backward_bytes
        needs = max(needs, work.whole_bytes + work.last_bytes - work.activation_bytes)
        assert live.peak <= 1.25 * (kept + work.boundary_bytes + max(needs, 2 * work.largest_tensor)), unit_kind


def test_what_config_json_leaves_out_is_as_transformers_has_it(kind: str) -> None:
    from transformers import AutoConfig

    told = AutoConfig.for_model(kind).to_dict()
    assert architecture(HfModel.of({"model_type": kind})) == architecture(HfModel.of(told))
