"""Every family's model split over 2 and 4 ranks equals the whole one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hetero.layers.cross_entropy import cross_entropy_sum
from hetero.layers.group import TensorGroup
from hetero.models.dimensions import Dimensions
from hetero.models.parts.head import Head
from hetero.models.registry import family_names
from tests.unit.hetero.models.standing_ranks import StandingRanks
from tests.unit.hetero.models.whole_model import Outcome, assemble, assert_equal_gradients, small, train_once

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
@pytest.mark.parametrize("family", family_names())
def test_split_model_equals_whole(ranks: StandingRanks, family: str, sizes: dict[str, Any], tp: int) -> None:
    dims = small(family=family, **sizes)
    whole = train_once(TensorGroup(), dims)
    outcomes = ranks.run(tp, train_once, dims)
    assert [outcome.loss for outcome in outcomes] == pytest.approx([whole.loss] * tp, rel=1e-6)
    assert_equal_gradients(assemble(dims, tp, outcomes), whole.gradients, 1e-5)


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


LABELS_N = torch.tensor([0, 1, 2, 3, 4, 9, 10, 10, 0])


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
