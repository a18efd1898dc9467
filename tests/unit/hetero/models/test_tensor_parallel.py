"""Every family's model split over 2 and 4 ranks equals the whole one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from benchmarks.tp_overlap import predict
from hetero.layers.builder import Builder
from hetero.layers.cross_entropy import IGNORED, cross_entropy_sum
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.parts.head import Head
from hetero.models.registry import OF_DIMENSIONS, architecture, family_names
from hetero.models.unit import STREAM
from hetero.models.unit_module import build_unit
from tests.tiny_models import tiny
from tests.unit.hetero.models.standing_ranks import StandingRanks
from tests.unit.hetero.models.whole_model import Outcome, assemble, assert_equal_gradients, small, text, train_once

pytestmark = pytest.mark.slow
SIZES: dict[str, dict[str, Any]] = {
    "grouped, ffn and vocab uneven": {},
    "one key-value head": {"kv_heads": 1, "qkv_bias": True},
    "fewer key-value heads than ranks, tied": {"kv_heads": 2, "tie_embeddings": True, "qkv_bias": True},
    "as many key-value heads as heads": {"kv_heads": 8, "vocab": 61, "ffn": 7},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingRanks]:
    standing = StandingRanks(tmp_path_factory.mktemp("ranks"))
    yield standing
    standing.close()


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("family", OF_DIMENSIONS)
def test_split_model_equals_whole(ranks: StandingRanks, family: str, sizes: dict[str, Any], tp: int) -> None:
    dims = small(family=family, **sizes)
    whole = train_once(TensorGroup(), dims)
    outcomes = ranks.run(tp, train_once, dims)
    assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
    assert_equal_gradients(assemble(dims, tp, outcomes), whole.gradients, 1e-5)


def _in_ways(group: TensorGroup, dims: ModelDescription, ways: dict[str, Any]) -> Outcome:
    return train_once(replace(group, **ways), dims)


WAYS: dict[str, dict[str, Any]] = {
    "rows": {"sequence_parallel": True},
    "slices": {"slices": 3},
    "rows in slices": {"sequence_parallel": True, "slices": 5},
}


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("sizes", list(SIZES.values())[::2], ids=list(SIZES)[::2])
def test_split_model_in_other_ways_equals_whole(
    ranks: StandingRanks, sizes: dict[str, Any], ways: dict[str, Any], tp: int
) -> None:
    """The stream cut along its tokens, and products in slices that do not divide them."""
    dims = small(**sizes)
    whole, outcomes = train_once(TensorGroup(), dims), ranks.run(tp, _in_ways, dims, ways)
    assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
    found = assemble(dims, tp, outcomes, ways.get("sequence_parallel", False))
    assert_equal_gradients(found, whole.gradients, 1e-5)


EXPERTS: dict[str, HfModel] = {
    "mixtral, equally busy": tiny("mixtral", output_router_logits=True, router_aux_loss_coef=0.5),
    "qwen2_moe": tiny("qwen2_moe"),
    "gpt_oss": tiny("gpt_oss"),
    "deepseek_v3, equally busy": tiny("deepseek_v3", aux_loss_alpha=0.5),
}


@pytest.mark.parametrize(
    "ways", [{}, {"spread": True}, {"spread": True, "sequence_parallel": True}], ids=["split", "spread", "in rows"]
)
@pytest.mark.parametrize("model", EXPERTS.values(), ids=EXPERTS)
def test_experts_split_or_spread_equal_whole_ones(ranks: StandingRanks, model: HfModel, ways: dict[str, Any]) -> None:
    """Their auxiliary losses count once, as biases do; uneven where there are 6 experts for 4 ranks."""
    tp = 4 if model.model_type == "qwen2_moe" and "spread" in ways else 2
    whole, outcomes = train_once(TensorGroup(), model), ranks.run(tp, _in_ways, model, ways)
    assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
    found = assemble(model, tp, outcomes, ways.get("sequence_parallel", False), ways.get("spread", False))
    assert_equal_gradients(found, whole.gradients, 1e-5)


@pytest.mark.parametrize("tp", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", family_names())
def test_every_family_split_equals_whole(ranks: StandingRanks, kind: str, tp: int) -> None:
    """Plainly, and with rows of the stream and products in slices; with more ranks than key-value heads, too."""
    model = tiny(kind)
    whole = train_once(TensorGroup(), model)
    for ways in ({}, WAYS["rows in slices"]):
        outcomes = ranks.run(tp, _in_ways, model, ways)
        assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
        assert_equal_gradients(assemble(model, tp, outcomes, "sequence_parallel" in ways), whole.gradients, 1e-5)


def _rows_kept(group: TensorGroup, dims: Dimensions, index: int, recompute: Recompute) -> int:
    """Bytes between a unit's forward and its backward."""
    builder = Builder(replace(group, sequence_parallel=True), Operators(), torch.bfloat16)
    unit = build_unit(dims, index, builder, recompute)
    x_BSD = torch.randn(1, 128 // group.size, dims.hidden, dtype=torch.bfloat16, requires_grad=True)
    nothing = torch.empty(0, dtype=torch.int64)
    unit({"x_BTD": x_BSD}, Batch(nothing, nothing))  # its angles are made once
    with LiveBytes() as live:
        _ = unit({"x_BTD": x_BSD}, Batch(nothing, nothing))
        return live.now


@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize(("tp", "recompute"), [(2, "none"), (4, "none"), (2, "selective"), (2, "full")])
def test_rows_of_the_stream_keep_the_bytes_that_are_counted(
    ranks: StandingRanks, tp: int, index: int, recompute: Recompute
) -> None:
    dims = small(ffn=176)
    told = architecture(dims).workload(128, 1, "bfloat16").units[index].under(recompute)
    given = told.boundary_bytes / tp if recompute == "none" else 0  # else it is what is kept
    wanted = told.kept_bytes(tp, tp) + given
    assert ranks.run(tp, _rows_kept, dims, index, recompute) == pytest.approx([wanted] * tp, rel=0.02)


def test_split_model_equals_whole_in_bfloat16(ranks: StandingRanks) -> None:
    whole = train_once(TensorGroup(), small())
    outcomes = ranks.run(2, train_once, small(), torch.bfloat16)
    assert outcomes[0].loss == pytest.approx(whole.loss, rel=1e-2)
    assert_equal_gradients(assemble(small(), 2, outcomes), whole.gradients, 0.1)


def _train_in_slices(group: TensorGroup, dims: Dimensions, slices: int, dtype: torch.dtype = torch.float32) -> Outcome:
    with patch.object(Head, "slices", lambda *_: slices):
        return train_once(group, dims, dtype)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_a_loss_in_slices_equals_that_of_whole_logits(ranks: StandingRanks, tp: int) -> None:
    dims = small(tie_embeddings=True)
    whole = train_once(TensorGroup(), dims)
    outcomes = ranks.run(tp, _train_in_slices, dims, 3)
    assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
    assert_equal_gradients(assemble(dims, tp, outcomes), whole.gradients, 1e-5)


def _kept(group: TensorGroup, dims: Dimensions, recompute: Recompute, dtype: torch.dtype, slices: int) -> list[int]:
    """Bytes that each unit keeps between forward and backward, what it was given among them."""
    batch, found = text(dims, 1, 64), []
    leaf = torch.ones(*batch.tokens_BT.shape, dims.hidden, dtype=dtype, requires_grad=True)
    with patch.object(Head, "slices", lambda *_: slices):
        for index in range(len(architecture(dims).units)):
            unit = build_unit(dims, index, Builder(group, Operators(), dtype), recompute)
            unit({STREAM: leaf}, batch)  # its angles are made once
            with LiveBytes() as live:
                (result,) = unit({STREAM: leaf * 1}, batch).values()
                found.append(live.now - result.numel() * result.element_size())
    return found


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.exhaustive), torch.bfloat16])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_what_units_keep_is_as_told(ranks: StandingRanks, tp: int, recompute: Recompute, dtype: torch.dtype) -> None:
    dims, precision = small(vocab=1600, ffn=176), str(dtype).removeprefix("torch.")
    for slices in (1, 3):
        with patch.object(Head, "slices", lambda *_, n=slices: n):
            told = [unit.under(recompute) for unit in architecture(dims).workload(64, 1, precision).units]
        for found in ranks.run(tp, _kept, dims, recompute, dtype, slices):
            assert found[1:] == pytest.approx([unit.kept_bytes(tp) for unit in told[1:]], rel=0.05)
            assert found[0] <= 16 * 64, "of an embedding, numbers of its tokens"


LABELS_N = torch.tensor([0, 1, 2, IGNORED, 3, 4, 9, 10, 10, 0])


def _logits(scale: float) -> torch.Tensor:
    return scale * torch.randn(len(LABELS_N), 11, generator=torch.Generator().manual_seed(0))


def _loss_twice(group: TensorGroup, scale: float) -> tuple[float, list[np.ndarray]]:
    """The loss and, twice, its gradient by this rank's uneven columns: all but the last rank have one each."""
    whole_NV = _logits(scale)
    stop = group.rank + 1 if group.rank < group.size - 1 else whole_NV.shape[-1]
    part_NV = whole_NV[:, group.rank : stop].clone().requires_grad_()
    loss = cross_entropy_sum(part_NV, LABELS_N, group, first=group.rank)
    gradients = [torch.autograd.grad(3 * loss, part_NV, retain_graph=True)[0].numpy() for _ in range(2)]
    return loss.item(), gradients


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("tp", [2, 4])
def test_split_loss_equals_whole_however_large_the_logits(ranks: StandingRanks, tp: int, scale: float) -> None:
    leaf_NV = _logits(scale).requires_grad_()
    wanted = F.cross_entropy(leaf_NV, LABELS_N, reduction="sum")
    (3 * wanted).backward()
    answers = ranks.run(tp, _loss_twice, scale)
    assert [loss for loss, _ in answers] == pytest.approx([wanted.item()] * tp, rel=1e-6)
    for again in range(2):  # the graph may be walked twice: input and weight gradients apart
        found = np.concatenate([gradients[again] for _, gradients in answers], axis=-1)
        np.testing.assert_allclose(found, leaf_NV.grad.numpy(), atol=1e-5, rtol=1e-5)


def _branches(group: TensorGroup) -> tuple[list[float], list[float]]:
    """copy_in on one of two branches that get the very same gradient tensor."""
    x = torch.ones(3, requires_grad=True)
    beside = torch.zeros(3, requires_grad=True)
    ((group.copy_in(x) + beside) * (1.0 + group.rank)).sum().backward()
    return x.grad.tolist(), beside.grad.tolist()


def test_copy_in_sums_its_own_gradient_and_leaves_others_alone(ranks: StandingRanks) -> None:
    for rank, (summed, alone) in enumerate(ranks.run(4, _branches)):
        assert summed == [10.0] * 3
        assert alone == [1.0 + rank] * 3


def _reduced(group: TensorGroup) -> tuple[list[float], list[float]]:
    x = torch.full((3,), float(group.rank), requires_grad=True)
    y = group.reduce_out(x * 2)
    y.sum().backward()
    return y.tolist(), x.grad.tolist()


def test_reduce_out_sums_forward_and_passes_gradients_through(ranks: StandingRanks) -> None:
    for total, gradient in ranks.run(4, _reduced):
        assert total == [12.0] * 3
        assert gradient == [2.0] * 3


def test_what_computes_beside_a_groups_collectives_hides_four_fifths_of_them(ranks: StandingRanks) -> None:
    """By the clock of chips that take a tenth of a step for them; products and collectives in the order of the code."""
    _, exposed = predict(ranks)
    assert exposed["tp_exposed_plain"] == pytest.approx(0.1, abs=1e-6)
    assert exposed["tp_exposed_unsliced"] < 0.06
    assert exposed["tp_exposed"] < 0.02
