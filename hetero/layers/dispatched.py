"""Products of a stack of weights, each with the tokens that are dispatched to it.

No token is copied but for the product that is being made: what is kept are the tokens as they came, and the rows. No
two rows of a weight are of one token, so that sums leave no order of additions to the chip.

Shapes: N tokens, X weights, M rows, D inputs, E outputs.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, cast

import torch

from hetero.layers.builder import Builder
from hetero.layers.dispatch import Dispatch
from hetero.layers.linear import WeightedModule
from hetero.layers.spec import TensorSpec
from hetero.layers.weight_gradients import ProductPair, WeightGradients


class DispatchedLinear(WeightedModule):
    """y = x W^T + b for each weight of a stack (X, E, D) with biases (X, E). The gradient of the weights is made as a
    `Linear`'s is."""

    def __init__(self, builder: Builder, weight: TensorSpec, bias: TensorSpec | None = None) -> None:
        super().__init__(builder, weight, bias)
        self._deferred = builder.group.size > 1

    def forward(self, x_ND: torch.Tensor, dispatch: Dispatch) -> torch.Tensor:
        """Tokens to rows, (N, D) -> (M, E)."""
        y_ME = gathered_product(x_ND, self.weight, dispatch, self._weight_gradients, self._deferred)
        return y_ME if self.bias is None else cast(torch.Tensor, _AddBias.apply(y_ME, self.bias, dispatch))

    def back(self, x_MD: torch.Tensor, dispatch: Dispatch, shape: torch.Size) -> torch.Tensor:
        """Rows to tokens, (M, D) -> `shape`, which is (..., E) of N tokens in all: a token's rows are added up, each
        times its weight. A fresh result, without the bias."""
        return combined_product(x_MD, self.weight, dispatch, shape, self._weight_gradients, self._deferred)


def gathered_product(
    x_ND: torch.Tensor,
    weight_XED: torch.Tensor,
    dispatch: Dispatch,
    weight_gradients: WeightGradients,
    deferred: bool = False,
) -> torch.Tensor:
    """(N, D) -> (M, E): of each row's token, with the row's weight."""
    return cast(torch.Tensor, _Gathered.apply(x_ND, weight_XED, dispatch, weight_gradients, deferred))


def combined_product(
    x_MD: torch.Tensor,
    weight_XED: torch.Tensor,
    dispatch: Dispatch,
    shape: torch.Size,
    weight_gradients: WeightGradients,
    deferred: bool = False,
) -> torch.Tensor:
    """(M, D) -> (..., E): what a token's rows give, times their weights, added up in the order of the stack."""
    combined = _Combined.apply(x_MD, dispatch.weight_M, weight_XED, dispatch, shape, weight_gradients, deferred)
    return cast(torch.Tensor, combined)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: torch.Tensor,
        weight_XED: torch.Tensor,
        dispatch: Dispatch,
        weight_gradients: WeightGradients,
        deferred: bool,
    ) -> torch.Tensor:
        _keep(ctx, x_ND, weight_XED, dispatch, weight_gradients, deferred)
        y_ME = x_ND.new_empty(len(dispatch.token_M), weight_XED.shape[1])
        for number, rows, tokens in dispatch.by_weight():
            torch.mm(x_ND.index_select(0, tokens), weight_XED[number].t(), out=y_ME[rows])
        return y_ME

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x_ND, dispatch), gradient_ME = _kept(ctx), gradients[0]
        dx_ND = None
        if ctx.needs_input_grad[0]:
            dx_ND = torch.zeros_like(x_ND, memory_format=torch.contiguous_format)
            for number, rows, tokens in dispatch.by_weight():
                dx_ND.index_add_(0, tokens, gradient_ME[rows].mm(ctx.weight_XED[number]))
        _take(ctx, ProductPair(ctx.weight_XED, x_ND, gradient_ME, dispatch))
        return dx_ND, None, None, None, None


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_MD: torch.Tensor,
        weight_M: torch.Tensor,
        weight_XED: torch.Tensor,
        dispatch: Dispatch,
        shape: torch.Size,
        weight_gradients: WeightGradients,
        deferred: bool,
    ) -> torch.Tensor:
        _keep(ctx, x_MD, weight_XED, dispatch, weight_gradients, deferred)
        y = x_MD.new_zeros(shape)
        y_NE = y.flatten(0, -2)
        for number, rows, tokens in dispatch.by_weight():
            y_ME = x_MD[rows].mm(weight_XED[number].t()).mul_(dispatch.weight_M[rows, None])
            y_NE.index_add_(0, tokens, y_ME)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x_MD, dispatch), gradient_NE = _kept(ctx), gradients[0].flatten(0, -2)
        dx_MD, dweight_M = torch.empty_like(x_MD), torch.empty_like(dispatch.weight_M)
        for number, rows, tokens in dispatch.by_weight():
            torch.mm(gradient_NE.index_select(0, tokens), ctx.weight_XED[number], out=dx_MD[rows])
            torch.sum(dx_MD[rows] * x_MD[rows], -1, out=dweight_M[rows])
            dx_MD[rows].mul_(dispatch.weight_M[rows, None])
        _take(ctx, ProductPair(ctx.weight_XED, x_MD, gradient_NE, dispatch, combined=True))
        return dx_MD, dweight_M, None, None, None, None, None


class _AddBias(torch.autograd.Function):
    """In place: the product is fresh."""

    @staticmethod
    def forward(ctx: Any, y_ME: torch.Tensor, bias_XE: torch.Tensor, dispatch: Dispatch) -> torch.Tensor:
        ctx.mark_dirty(y_ME)
        ctx.counts = dispatch.counts
        for number, rows, _ in dispatch.by_weight():
            y_ME[rows] += bias_XE[number]
        return y_ME

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        gradient_ME, bias_XE = gradients[0], None
        if ctx.needs_input_grad[1]:
            bias_XE = gradient_ME.new_zeros(len(ctx.counts), gradient_ME.shape[1])
            ends = accumulate(ctx.counts)
            for bias_E, end, count in zip(bias_XE, ends, ctx.counts, strict=True):
                torch.sum(gradient_ME[end - count : end], 0, out=bias_E)
        return gradient_ME, bias_XE, None


def _keep(
    ctx: Any,
    x: torch.Tensor,
    weight_XED: torch.Tensor,
    dispatch: Dispatch,
    weight_gradients: WeightGradients,
    deferred: bool,
) -> None:
    ctx.save_for_backward(x, dispatch.token_M, dispatch.weight_M)
    # The weight itself, by which its gradient is known: what is saved may come back as another tensor.
    ctx.weight_XED, ctx.counts, ctx.weight_gradients, ctx.deferred = (
        weight_XED,
        dispatch.counts,
        weight_gradients,
        deferred,
    )


def _kept(ctx: Any) -> tuple[torch.Tensor, Dispatch]:
    """Without the graph that they came from, which what is handed over must not hold."""
    x, token_M, weight_M = ctx.saved_tensors
    return x.detach(), Dispatch(token_M, weight_M.detach(), ctx.counts)


def _take(ctx: Any, pair: ProductPair) -> None:
    """Hands over what the weights' gradient is made of, if it is asked for."""
    if ctx.weight_XED.requires_grad:
        ctx.weight_gradients.take(pair, ctx.deferred)
