"""The logits of transformers' heads: told as a scale and a cap, made by ours in slices, never all at once."""

from __future__ import annotations

import pytest
import torch

from backends.operators import Operators
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.hf_model import HfModel
from hetero.models.parts.head import Head
from hetero.models.provided.described import describe
from hetero.models.registry import architecture
from hetero.models.unit import STREAM
from hetero.models.unit_module import build_unit
from tests.tiny_provided import tiny_provided
from tests.unit.hetero.models.whole_model import assert_equal_gradients, build, gradients_of, loss_of, text

pytestmark = pytest.mark.slow


def _with(kind: str, **values: object) -> HfModel:
    return HfModel.of({**tiny_provided(kind).values, **values})


@pytest.mark.parametrize(
    ("model", "scale", "cap", "bias"),
    [
        pytest.param(_with("arcee"), 1.0, None, False, id="plain"),
        pytest.param(_with("cohere", logit_scale=0.0625), 0.0625, None, False, id="scaled"),
        pytest.param(_with("minicpm3", hidden_size=32, dim_model_base=8), 0.25, None, False, id="scaled before"),
        pytest.param(_with("vaultgemma", final_logit_softcapping=30.0), 1.0, 30.0, False, id="capped"),
        pytest.param(_with("beam", final_logit_softcapping=2.5), 1.0, 2.5, False, id="capped tightly"),
        pytest.param(_with("gptj"), 1.0, None, True, id="bias"),
    ],
)
def test_what_is_done_with_the_product_is_seen(model: HfModel, scale: float, cap: float | None, bias: bool) -> None:
    found = describe(model).kinds[-1].logits
    assert found is not None
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.cap == pytest.approx(cap)
    assert len(found.tensors) == 1 + bias


def test_logits_of_some_entries_alone_are_left_to_transformers() -> None:
    told = describe(_with("inkling_text", unpadded_vocab_size=200))
    assert told.kinds[-1].logits is None


@pytest.mark.parametrize("kind", ["beam", "cohere", "gptj"])
def test_slices_give_the_loss_and_gradients_of_whole_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_provided(kind)
    losses, gradients = [], []
    for slices in (1, 5):
        monkeypatch.setattr(Head, "slices", lambda *_, n=slices: n)
        units = build(model)
        loss = loss_of(units, text(model))
        loss.backward()
        losses.append(loss.item())
        gradients.append(gradients_of(units))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert_equal_gradients(*gradients, 1e-5)


@pytest.mark.parametrize("kind", ["arcee", "cohere", "gptj", "phi"])
@pytest.mark.parametrize("slices", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_holds_what_is_told_and_no_more_than_a_slice_of_logits(
    kind: str, slices: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "slices", lambda *_: slices)
    model, length = _with(kind, vocab_size=4096), 64
    told = architecture(model)
    last, hidden, name = len(told.units) - 1, told.boundary[STREAM], str(dtype).removeprefix("torch.")
    unit = build_unit(model, last, Builder(TensorGroup(), Operators(), dtype))
    leaf_BTD = torch.randn(1, length, hidden, dtype=dtype, requires_grad=True)
    for parameter in unit.parameters():
        parameter.grad = torch.zeros_like(parameter)
    batch = text(model, 1, length)
    with LiveBytes() as live:
        loss = unit({STREAM: leaf_BTD * 1.0}, batch)["loss"]
        kept, live.peak = live.now, live.now
        loss.backward()
    work = told.workload(length, 1, name).units[last]
    assert kept == pytest.approx(work.activation_bytes, rel=0.05)
    needs = max(work.remade.on_rank(1) + work.backward_bytes, work.last_bytes) + work.largest_tensor * dtype.itemsize
    assert live.peak <= 1.25 * (kept + needs)
    if slices > 1:
        whole, gradient = 4 * length * 4096, 4096 * hidden * dtype.itemsize
        assert live.peak - gradient < whole / 2
