"""Attention whose scores are bent towards a cap before the softmax, or some of which goes to a sink, a few heads at a
time, forward and backward: no square of all heads is ever there.

Shapes: B samples, T positions, H query heads that read G key-value heads, N of them each, K head size.
"""

from __future__ import annotations

from typing import Any, cast

import torch


def capped_attention(
    q_BHTK: torch.Tensor,
    k_BGTK: torch.Tensor,
    v_BGTK: torch.Tensor,
    added: torch.Tensor,
    cap: float | None,
    sink_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(cap * tanh(q k^T / sqrt(K) / cap) + added) v, with `added` of shape (B or 1, 1, T, T). Without a cap
    scores are as they are. A head's sink is one more score of each position, whose value is nothing."""
    return cast(torch.Tensor, _CappedAttention.apply(q_BHTK, k_BGTK, v_BGTK, added, cap, sink_H))


class _CappedAttention(torch.autograd.Function):
    """Keeps what it was given; backward makes the scores again."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTK: torch.Tensor,
        k_BGTK: torch.Tensor,
        v_BGTK: torch.Tensor,
        added: torch.Tensor,
        cap: float | None,
        sink_H: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(q_BHTK, k_BGTK, v_BGTK, added, sink_H)
        ctx.cap = cap
        heads = q_BHTK.size(1) // k_BGTK.size(1)
        y_BHTK = torch.empty_like(q_BHTK)
        for group in range(k_BGTK.size(1)):
            own = slice(group * heads, (group + 1) * heads)
            sink_N = None if sink_H is None else sink_H[own]
            _, read_BNTT = _scores(q_BHTK[:, own], k_BGTK[:, group, None], added, cap, sink_N)
            y_BHTK[:, own] = read_BNTT.to(v_BGTK.dtype) @ v_BGTK[:, group, None]
        return y_BHTK

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_BHTK, k_BGTK, v_BGTK, added, sink_H = ctx.saved_tensors
        dsink_H = None if sink_H is None else torch.empty_like(sink_H)
        heads, scale = q_BHTK.size(1) // k_BGTK.size(1), q_BHTK.size(-1) ** -0.5
        dq_BHTK, dk_BGTK, dv_BGTK = (torch.empty_like(x) for x in (q_BHTK, k_BGTK, v_BGTK))
        for group in range(k_BGTK.size(1)):
            own = slice(group * heads, (group + 1) * heads)
            q_BNTK, k_B1TK, v_B1TK = q_BHTK[:, own], k_BGTK[:, group, None], v_BGTK[:, group, None]
            gradient_BNTK = gradients[0][:, own]
            sink_N = None if sink_H is None else sink_H[own]
            bent_BNTT, read_BNTT = _scores(q_BNTK, k_B1TK, added, ctx.cap, sink_N)
            dv_BGTK[:, group] = (read_BNTT.to(v_BGTK.dtype).mT @ gradient_BNTK).sum(1)
            d_BNTT = (gradient_BNTK @ v_B1TK.mT).float()
            mean_BNT1 = (read_BNTT * d_BNTT).sum(-1, keepdim=True)
            if dsink_H is not None:
                dsink_H[own] = ((read_BNTT.sum(-1, keepdim=True) - 1.0) * mean_BNT1).sum((0, 2, 3))
            d_BNTT = read_BNTT * (d_BNTT - mean_BNT1)
            if ctx.cap is not None:
                d_BNTT = d_BNTT * (1.0 - bent_BNTT.square())
            d_BNTT = (d_BNTT * scale).to(q_BHTK.dtype)
            dq_BHTK[:, own] = d_BNTT @ k_B1TK
            dk_BGTK[:, group] = (d_BNTT.mT @ q_BNTK).sum(1)
        return dq_BHTK, dk_BGTK, dv_BGTK, None, None, dsink_H


def _scores(
    q_BNTK: torch.Tensor,
    k_B1TK: torch.Tensor,
    added: torch.Tensor,
    cap: float | None,
    sink_N: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a cap bends, over the cap, and what of each position is read: in float32."""
    bent_BNTT = (q_BNTK @ k_B1TK.mT).float() * (q_BNTK.size(-1) ** -0.5 / (cap or 1.0))
    if cap is not None:
        bent_BNTT.tanh_()
    scores_BNTT = (cap or 1.0) * bent_BNTT + added
    if sink_N is None:
        return bent_BNTT, scores_BNTT.softmax(-1)
    sink_BNT1 = sink_N.float()[:, None, None].expand(*scores_BNTT.shape[:-1], 1)
    return bent_BNTT, torch.cat((scores_BNTT, sink_BNT1), -1).softmax(-1)[..., :-1]
