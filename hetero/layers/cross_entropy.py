"""The summed loss of tokens whose vocabulary is cut over the ranks.

Shapes: N tokens, V vocabulary entries of this rank.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F

from hetero.layers.group import TensorGroup

IGNORED = -100
"""The label of a token whose loss is not counted. It has no gradient either."""


def cross_entropy_sum(
    logits_NV: torch.Tensor, labels_N: torch.Tensor, group: TensorGroup, first: int = 0
) -> torch.Tensor:
    """Sum over tokens of -log softmax(logits)[label]: a float32 scalar, equal on all ranks.

    `first` is the vocabulary entry of this rank's column 0; labels are entries of the whole vocabulary, or IGNORED.
    """
    if group.size == 1:
        return F.cross_entropy(logits_NV.float(), labels_N, ignore_index=IGNORED, reduction="sum")
    return cast(torch.Tensor, _SplitCrossEntropy.apply(logits_NV, labels_N, group, first))


class _SplitCrossEntropy(torch.autograd.Function):
    """Keeps one float32 array of the logits' size for backward: softmax minus one at the label."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor, group: TensorGroup, first: int
    ) -> torch.Tensor:
        peak_N = group.all_reduce_max(logits_NV.float().amax(-1))
        probability_NV = logits_NV.float() - peak_N[:, None]
        column_N = labels_N - first
        here_N = (column_N >= 0) & (column_N < logits_NV.shape[-1])
        column_N1 = column_N.masked_fill(~here_N, 0)[:, None]
        chosen_N = probability_NV.gather(-1, column_N1).squeeze(-1) * here_N
        total_N = probability_NV.exp_().sum(-1)
        total_N, chosen_N = group.all_reduce_sum(torch.stack((total_N, chosen_N)))
        ignored_N = labels_N == IGNORED
        probability_NV.div_(total_N.masked_fill(ignored_N, torch.inf)[:, None])
        probability_NV.scatter_add_(-1, column_N1, -here_N.float()[:, None])
        ctx.save_for_backward(probability_NV)
        ctx.dtype = logits_NV.dtype
        return (total_N.log() - chosen_N).masked_fill_(ignored_N, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient_NV,) = ctx.saved_tensors
        return (gradient_NV * gradients[0]).to(ctx.dtype), None, None, None
