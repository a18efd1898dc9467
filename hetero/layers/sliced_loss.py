"""The loss of tokens straight from their vectors: logits of one slice of the vocabulary are there at a time.

Slices are of the vocabulary and not of the tokens: so each row of the weight's gradient is one product over all tokens,
written once, and ranks speak to each other once for all slices.

Shapes: N tokens, D hidden, V vocabulary entries of this rank, S of a slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F

from hetero.layers.cross_entropy import IGNORED, cross_entropy_sum
from hetero.layers.group import TensorGroup


def projected_loss_sum(
    x_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    group: TensorGroup,
    first: int,
    slices: int,
    scale: float = 1.0,
    cap: float | None = None,
    bias_V: torch.Tensor | None = None,
) -> torch.Tensor:
    """`cross_entropy_sum` of the logits scale * (x W^T + bias), which a cap bends to cap * tanh(logits / cap). With
    several slices backward makes them again: one product more.

    All ranks have the same number of slices. Gradients of x are this rank's part, as those of a plain product.
    """
    if slices == 1:
        logits_NV = F.linear(x_ND, weight_VD, bias_V)
        if scale != 1.0:
            logits_NV = logits_NV.mul_(scale)
        if cap is not None:
            logits_NV = cap * (logits_NV.float() / cap).tanh()
        return cross_entropy_sum(logits_NV, labels_N, group, first)
    bent = scale, cap
    return cast(torch.Tensor, _SlicedLoss.apply(x_ND, weight_VD, bias_V, labels_N, group, first, slices, bent))


class _SlicedLoss(torch.autograd.Function):
    """Keeps two float32 numbers for each token beside what it was given."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        group: TensorGroup,
        first: int,
        slices: int,
        bent: tuple[float, float | None],
    ) -> torch.Tensor:
        own = _Sums.of_nothing(x_ND)
        for one in _slices(weight_VD, bias_V, labels_N, first, slices, bent):
            own = own.with_slice(one, x_ND)
        peak_N = group.all_reduce_max(own.peak_N.clone())
        has_label_N = (labels_N >= first) & (labels_N < first + len(weight_VD))
        chosen_N = torch.where(has_label_N, own.chosen_N - peak_N, 0.0)
        total_N = own.total_N * (own.peak_N - peak_N).exp()
        total_N, chosen_N = group.all_reduce_sum(torch.stack((total_N, chosen_N)))
        ctx.save_for_backward(x_ND, weight_VD, bias_V, labels_N, peak_N, total_N)
        ctx.first, ctx.slices, ctx.bent = first, slices, bent
        return (total_N.log() - chosen_N).masked_fill_(labels_N == IGNORED, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_ND, weight_VD, bias_V, labels_N, peak_N, total_N = ctx.saved_tensors
        scale, cap = ctx.bent
        scale_N = gradients[0] / total_N.masked_fill(labels_N == IGNORED, torch.inf)
        x_sum_ND = torch.zeros_like(x_ND, dtype=torch.float32)
        weight_gradient_VD = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None
        bias_gradient_V = torch.empty_like(bias_V) if ctx.needs_input_grad[2] else None
        for one in _slices(weight_VD, bias_V, labels_N, ctx.first, ctx.slices, ctx.bent):
            logits_NS = one.logits(x_ND)
            slope_NS = None if cap is None else 1.0 - (logits_NS / cap).square_()
            logits_NS = logits_NS.sub_(peak_N[:, None]).exp_().mul_(scale_N[:, None])
            one.subtract_at_labels(logits_NS, gradients[0])
            if slope_NS is not None:
                logits_NS *= slope_NS
            if scale != 1.0:
                logits_NS *= scale
            gradient_NS = logits_NS.to(x_ND.dtype)
            del logits_NS
            rows = slice(one.begin, one.begin + len(one.rows_SD))
            if weight_gradient_VD is not None:
                torch.mm(gradient_NS.t(), x_ND, out=weight_gradient_VD[rows])
            if bias_gradient_V is not None:
                bias_gradient_V[rows] = gradient_NS.sum(0)
            x_sum_ND += gradient_NS @ one.rows_SD
            del gradient_NS
        return x_sum_ND.to(x_ND.dtype), weight_gradient_VD, bias_gradient_V, None, None, None, None, None


class _Slice(NamedTuple):
    """Rows of a rank's weight, from number `begin` on, and their bias. `column_N1` is the label's place among them, 0
    where it has none."""

    begin: int
    rows_SD: torch.Tensor
    bias_S: torch.Tensor | None
    column_N1: torch.Tensor
    here_N: torch.Tensor
    bent: tuple[float, float | None]
    """The scale of logits, and their cap."""

    def logits(self, x_ND: torch.Tensor) -> torch.Tensor:
        """In float32, fresh."""
        logits_NS, (scale, cap) = F.linear(x_ND, self.rows_SD, self.bias_S).float(), self.bent
        logits_NS = logits_NS if scale == 1.0 else logits_NS.mul_(scale)
        return logits_NS if cap is None else logits_NS.div_(cap).tanh_().mul_(cap)

    def subtract_at_labels(self, gradient_NS: torch.Tensor, amount: torch.Tensor) -> None:
        gradient_NS.scatter_add_(-1, self.column_N1, -(self.here_N * amount)[:, None])


def _slices(
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    first: int,
    count: int,
    bent: tuple[float, float | None],
) -> Iterator[_Slice]:
    begin = 0
    for rows_SD in weight_VD.split(-(-len(weight_VD) // count)):
        bias_S = None if bias_V is None else bias_V[begin : begin + len(rows_SD)]
        column_N = labels_N - (first + begin)
        here_N = (column_N >= 0) & (column_N < len(rows_SD))
        yield _Slice(begin, rows_SD, bias_S, column_N.masked_fill_(~here_N, 0)[:, None], here_N, bent)
        begin += len(rows_SD)


class _Sums(NamedTuple):
    """Of the slices so far, in float32: the largest logit, the sum of exp(logit - largest), and the label's logit."""

    peak_N: torch.Tensor
    total_N: torch.Tensor
    chosen_N: torch.Tensor

    @staticmethod
    def of_nothing(x_ND: torch.Tensor) -> _Sums:
        zeros_N = torch.zeros(len(x_ND), dtype=torch.float32, device=x_ND.device)
        return _Sums(torch.full_like(zeros_N, -torch.inf), zeros_N, zeros_N)

    def with_slice(self, one: _Slice, x_ND: torch.Tensor) -> _Sums:
        logits_NS = one.logits(x_ND)
        chosen_N = torch.where(one.here_N, logits_NS.gather(-1, one.column_N1).squeeze(-1), self.chosen_N)
        peak_N = torch.maximum(self.peak_N, logits_NS.amax(-1))
        total_N = self.total_N * (self.peak_N - peak_N).exp()
        return _Sums(peak_N, total_N + logits_NS.sub_(peak_N[:, None]).exp_().sum(-1), chosen_N)
