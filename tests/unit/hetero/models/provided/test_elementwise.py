"""Layers of transformers' own modules whose norms and activations are made again."""

from __future__ import annotations

import pytest
import torch

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.hf_model import HfModel
from hetero.models.provided.elementwise import elementwise
from hetero.models.provided.skeleton import skeleton_of
from hetero.models.registry import architecture
from hetero.models.unit import STREAM
from hetero.models.unit_module import UnitModule, build_unit
from tests.tiny_provided import PROVIDED, tiny_provided
from tests.unit.hetero.models.whole_model import gradients_of, loss_of, text

pytestmark = pytest.mark.slow

COVERING = {"arcee", "cohere", "dots1", "exaone4", "phi", "qwen3_next"}


def _build(model: HfModel, recompute: Recompute, dtype: torch.dtype = torch.float32) -> list[UnitModule]:
    builder = Builder(TensorGroup(), Operators(), dtype, seed=3)
    return [build_unit(model, unit, builder, recompute) for unit in range(len(architecture(model).units))]


def test_norms_and_activations_are_found() -> None:
    layer = skeleton_of(tiny_provided("exaone4")).layers[0]
    names = {name for name, module in layer.named_modules() if module in [*elementwise(layer)]}
    norms = {"post_attention_layernorm", "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"}
    assert names == {*norms, "mlp.act_fn"}


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in COVERING else pytest.mark.exhaustive) for one in PROVIDED]
)
def test_loss_and_gradients_have_the_same_bits(kind: str) -> None:
    model, found = tiny_provided(kind), []
    for recompute in ("none", "selective"):
        units = _build(model, recompute)
        loss = loss_of(units, text(model))
        loss.backward()
        found.append({**gradients_of(units), "loss": loss.detach().numpy()})
    assert [name for name in found[0] if not (found[0][name] == found[1][name]).all()] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("kind", ["arcee", "cohere", "exaone4", "phi"])
def test_bytes_are_those_of_the_tensors_that_are_there(kind: str, recompute: Recompute, dtype: torch.dtype) -> None:
    """What a layer keeps, its input included, and what its backward needs."""
    length = 128
    model = HfModel.of({**tiny_provided(kind).values, "max_position_embeddings": length})
    told, unit = architecture(model), _build(model, recompute, dtype)[2]
    x_BTD, batch = (
        torch.randn(1, length, told.boundary[STREAM], dtype=dtype, requires_grad=True),
        text(model, 1, length),
    )
    unit({STREAM: x_BTD}, batch)  # what layers share is there
    for parameter in unit.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        out_BTD = unit({STREAM: x_BTD * 1.0}, batch)[STREAM]
        kept, gradient_BTD = live.now - out_BTD.nbytes, torch.ones_like(out_BTD)
        live.peak = live.now
        out_BTD.backward(gradient_BTD)
    plain = told.workload(length, 1, str(dtype).removeprefix("torch.")).units[2]
    work = plain.under(recompute)
    assert kept == pytest.approx(work.activation_bytes, rel=0.02)
    assert recompute == "none" or work.activation_bytes < plain.activation_bytes
    needs = work.remade.on_rank(1) + work.backward_bytes
    needs = max(needs, work.whole_bytes + work.last_bytes - work.activation_bytes)
    assert live.peak <= 1.25 * (kept + 2 * out_BTD.nbytes + max(needs, 2 * work.largest_tensor))
