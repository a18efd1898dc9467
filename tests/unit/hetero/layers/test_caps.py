"""Scores and logits that do not exceed a cap: what backward makes again is what plain torch keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backends.attention_mask import AttentionMask
from hetero.layers.capped_attention import capped_attention
from hetero.layers.group import TensorGroup
from hetero.layers.sliced_loss import projected_loss_sum


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))).requires_grad_()


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_capped_attention_equals_the_formula(groups: int, window: int | None) -> None:
    cap, added = 2.0, AttentionMask(window=window).added(torch.empty(2, 4, 9, 8))
    q_BHTK, k_BGTK, v_BGTK = _normal(2, 4, 9, 8), 3 * _normal(2, groups, 9, 8), _normal(2, groups, 9, 8)
    k_BHTK, v_BHTK = (x.repeat_interleave(4 // groups, 1) for x in (k_BGTK, v_BGTK))
    scores = cap * ((q_BHTK @ k_BHTK.mT) * 8**-0.5 / cap).tanh() + added
    wanted = scores.softmax(-1) @ v_BHTK
    found = capped_attention(q_BHTK, k_BGTK, v_BGTK, added, cap)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    weights = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).view_as(wanted)
    inputs = q_BHTK, k_BGTK, v_BGTK
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "cap"), [(0.5, None), (1.0, 2.0), (3.0, 2.0)])
@pytest.mark.parametrize("slices", [1, 3])
def test_a_loss_of_scaled_and_capped_logits(slices: int, scale: float, cap: float | None) -> None:
    x_ND, weight_VD = (torch.randn(shape).requires_grad_() for shape in ((7, 6), (11, 6)))
    labels_N = torch.arange(7)
    logits_NV = scale * (x_ND @ weight_VD.T)
    logits_NV = logits_NV if cap is None else cap * (logits_NV / cap).tanh()
    wanted = F.cross_entropy(logits_NV, labels_N, reduction="sum")
    found = projected_loss_sum(x_ND, weight_VD, labels_N, TensorGroup(), 0, slices, scale, cap)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(loss, (x_ND, weight_VD)) for loss in (found, wanted))
    torch.testing.assert_close(ours, theirs)
