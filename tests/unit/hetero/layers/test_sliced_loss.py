"""The loss in slices of the vocabulary is the loss of whole logits, which never exist."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hetero.layers.cross_entropy import IGNORED
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.sliced_loss import projected_loss_sum

TOKENS, HIDDEN, VOCAB = 12, 8, 37
ALONE = TensorGroup()
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _given(dtype: torch.dtype, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    x_ND = torch.randn(TOKENS, HIDDEN, generator=made).mul_(spread).to(dtype)
    weight_VD = torch.randn(VOCAB, HIDDEN, generator=made).to(dtype)
    labels_N = torch.randint(VOCAB, (TOKENS,), generator=made)
    labels_N[:4] = torch.tensor([0, VOCAB - 1, IGNORED, IGNORED])
    return x_ND.requires_grad_(), weight_VD.requires_grad_(), labels_N


def _found(slices: int, dtype: torch.dtype, scale: float, spread: float = 1.0) -> Found:
    x_ND, weight_VD, labels_N = _given(dtype, spread)
    loss = projected_loss_sum(x_ND, weight_VD, labels_N, ALONE, 0, slices)
    loss.backward(torch.full_like(loss, scale))
    return loss.detach(), x_ND.grad / scale, weight_VD.grad / scale


def _exact(dtype: torch.dtype, spread: float = 1.0) -> Found:
    x_ND, weight_VD, labels_N = _given(dtype, spread)
    wide = [one.detach().double().requires_grad_() for one in (x_ND, weight_VD)]
    loss = F.cross_entropy(F.linear(*wide), labels_N, reduction="sum")
    loss.backward()
    return loss.detach(), wide[0].grad, wide[1].grad


@pytest.mark.parametrize("slices", [1, 2, 5, VOCAB])
@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_loss_and_gradients_are_those_of_whole_logits(slices: int, spread: float) -> None:
    for found, exact in zip(_found(slices, torch.float32, 3.0, spread), _exact(torch.float32, spread), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("slices", [1, 5])
def test_a_bias_is_added_before_the_scale_and_learns(slices: int) -> None:
    x_ND, weight_VD, labels_N = _given(torch.float32)
    found, wanted = (torch.linspace(-1, 1, VOCAB, dtype=d).requires_grad_() for d in (torch.float32, torch.float64))
    loss = projected_loss_sum(x_ND, weight_VD, labels_N, ALONE, 0, slices, scale=0.5, bias_V=found)
    exact = F.cross_entropy(0.5 * F.linear(x_ND.double(), weight_VD.double(), wanted), labels_N, reduction="sum")
    for one in (loss, exact):
        one.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_narrow_ones_are_off_by_no_more_than_whole_logits_are(dtype: torch.dtype, tolerance: float) -> None:
    """With a loss scale that keeps small gradients from vanishing in float16."""
    exact = _exact(dtype)
    for slices in (1, 4):
        for found, wanted in zip(_found(slices, dtype, 1024.0), exact, strict=True):
            assert torch.linalg.norm(found.double() - wanted) <= tolerance * torch.linalg.norm(wanted)


@pytest.mark.parametrize("slices", [1, 4])
def test_without_gradients_it_is_the_same_loss(slices: int) -> None:
    with torch.no_grad():
        found = projected_loss_sum(*_given(torch.float32), ALONE, 0, slices)
    assert not found.requires_grad
    assert torch.equal(found, _found(slices, torch.float32, 1.0)[0])


def test_the_graph_may_be_walked_twice() -> None:
    x_ND, weight_VD, labels_N = _given(torch.float32)
    loss = projected_loss_sum(x_ND, weight_VD, labels_N, ALONE, 0, 3)
    first, again = (torch.autograd.grad(2 * loss, (x_ND, weight_VD), retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_all_tokens_and_entries_are_never_there(dtype: torch.dtype) -> None:
    tokens, vocab, slices = 64, 4096, 16
    x_ND = torch.randn(tokens, HIDDEN).to(dtype).requires_grad_()
    weight_VD = torch.randn(vocab, HIDDEN).to(dtype).requires_grad_()
    labels_N = torch.randint(vocab, (tokens,))
    whole = tokens * vocab * 4
    with LiveBytes() as live:
        loss = projected_loss_sum(x_ND, weight_VD, labels_N, ALONE, 0, slices)
        kept, forward = live.now, live.peak
        loss.backward()
    assert kept < 64 * tokens
    assert max(forward, live.peak) < whole / 4
