"""A matrix product whose backward comes in two parts: the gradient of its input, and that of its weight.

Shapes: N tokens, D inputs, E outputs, R ranks that have rows of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import ProductPair, WeightGradients


def product(
    x: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    weight_gradients: WeightGradients,
    deferred: bool = False,
) -> torch.Tensor:
    """(..., D) -> (..., E). Autograd gives x and bias their gradients; `weight_gradients` is handed what the weight's
    is made of, as soon as that of x is made."""
    return cast(torch.Tensor, _Product.apply(x, weight_ED, bias_E, weight_gradients, deferred))


def summed_product(
    x: torch.Tensor,
    weight_ED: torch.Tensor,
    weight_gradients: WeightGradients,
    group: TensorGroup,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """(..., D) -> (..., E), summed over the ranks or this one's rows of the sum, as `TensorGroup.reduce_out` gives
    them. It is made in `group.slices` of the rows: each is summed while the next is computed. What is `added` to a
    rank's own product, (..., E), is summed with it."""
    return cast(torch.Tensor, _SummedProduct.apply(x, weight_ED, weight_gradients, group, added))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        weight_gradients: WeightGradients,
        deferred: bool,
    ) -> torch.Tensor:
        _keep(ctx, x, weight_ED)
        ctx.weight_gradients, ctx.deferred = weight_gradients, deferred
        return F.linear(x, weight_ED, bias_E)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        bias_E = gradients[0].flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return _input_gradient(ctx, gradients[0]), None, bias_E, None, None


class _SummedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_ED: torch.Tensor,
        weight_gradients: WeightGradients,
        group: TensorGroup,
        added: torch.Tensor | None,
    ) -> torch.Tensor:
        _keep(ctx, x, weight_ED)
        ctx.weight_gradients, ctx.deferred, ctx.group = weight_gradients, True, group
        sums, added_NE = _scattered_sums if group.sequence_parallel else _sums, _rows(added)
        total_NE = sums(x.flatten(0, -2), weight_ED.t(), added_NE, group)
        return total_NE.view(x.shape[0], -1, weight_ED.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.group.sequence_parallel:
            return _input_gradient(ctx, gradients[0]), None, None, None, _of_added(ctx, gradients[0])
        whole_NE, dx_ND = _gathered_product(gradients[0].flatten(0, -2), ctx.weight_ED, ctx.group)
        _hand_over(ctx, whole_NE)
        return dx_ND.view(ctx.shape), None, None, None, _of_added(ctx, whole_NE.view(*ctx.shape[:-1], -1))


def _of_added(ctx: Any, gradient: torch.Tensor) -> torch.Tensor | None:
    return gradient if ctx.needs_input_grad[4] else None


def _rows(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.flatten(0, -2)


def _keep(ctx: Any, x: torch.Tensor, weight_ED: torch.Tensor) -> None:
    """What backward needs: of the input its shape alone, where the weight has no gradient."""
    # The weight itself, by which its gradient is known: what is saved may come back as another tensor.
    ctx.weight_ED, ctx.shape = weight_ED, x.shape
    if ctx.needs_input_grad[1]:
        ctx.save_for_backward(x)


def _input_gradient(ctx: Any, gradient: torch.Tensor) -> torch.Tensor | None:
    """Hands over what the weight's is made of."""
    gradient_NE = gradient.flatten(0, -2)
    dx = gradient_NE.mm(ctx.weight_ED).view(ctx.shape) if ctx.needs_input_grad[0] else None
    _hand_over(ctx, gradient_NE)
    return dx


def _hand_over(ctx: Any, gradient_NE: torch.Tensor) -> None:
    if ctx.needs_input_grad[1]:
        (x,) = ctx.saved_tensors
        ctx.weight_gradients.take(ProductPair(ctx.weight_ED, x.detach().flatten(0, -2), gradient_NE), ctx.deferred)


def _sums(
    x_ND: torch.Tensor, weight_DE: torch.Tensor, added_NE: torch.Tensor | None, group: TensorGroup
) -> torch.Tensor:
    assert group.communicator is not None
    total_NE = x_ND.new_empty(x_ND.shape[0], weight_DE.shape[1])
    works = []
    added = [None] * group.slices if added_NE is None else added_NE.tensor_split(group.slices)
    slices = x_ND.tensor_split(group.slices), total_NE.tensor_split(group.slices), added
    for rows_ND, sum_NE, more_NE in zip(*slices, strict=True):
        torch.mm(rows_ND, weight_DE, out=sum_NE)
        if more_NE is not None:
            sum_NE += more_NE
        works.append(group.communicator.start_all_reduce(sum_NE))
    for work in works:
        work.wait()
    return total_NE


def _scattered_sums(
    x_ND: torch.Tensor, weight_DE: torch.Tensor, added_NE: torch.Tensor | None, group: TensorGroup
) -> torch.Tensor:
    """A slice has some of each rank's rows."""
    assert group.communicator is not None
    x_RND = x_ND.view(group.size, -1, x_ND.shape[-1])
    mine_NE = x_ND.new_empty(x_RND.shape[1], weight_DE.shape[1])
    works = []
    added: Sequence[torch.Tensor | None] = [None] * group.slices
    if added_NE is not None:
        added = added_NE.view(group.size, -1, added_NE.shape[-1]).tensor_split(group.slices, 1)
    slices = x_RND.tensor_split(group.slices, 1), mine_NE.tensor_split(group.slices), added
    for rows_RND, sum_NE, more_RNE in zip(*slices, strict=True):
        part_NE = rows_RND.flatten(0, 1).mm(weight_DE)
        if more_RNE is not None:
            part_NE += more_RNE.flatten(0, 1)
        works.append((group.communicator.start_reduce_scatter(sum_NE, part_NE), part_NE))
    for work, _ in works:
        work.wait()
    return mine_NE


def _gathered_product(
    mine_NE: torch.Tensor, weight_ED: torch.Tensor, group: TensorGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """All ranks' rows, and their product: that of one slice is made while the next is gathered."""
    assert group.communicator is not None
    whole_RNE = mine_NE.new_empty(group.size, *mine_NE.shape)
    product_RND = mine_NE.new_empty(group.size, mine_NE.shape[0], weight_ED.shape[1])
    works = []
    for rows_NE in mine_NE.tensor_split(group.slices):
        gathered_RNE = mine_NE.new_empty(group.size, *rows_NE.shape)
        works.append((group.communicator.start_all_gather(gathered_RNE, rows_NE.contiguous()), gathered_RNE))
    slices = whole_RNE.tensor_split(group.slices, 1), product_RND.tensor_split(group.slices, 1)
    for (work, gathered_RNE), slice_RNE, slice_RND in zip(works, *slices, strict=True):
        work.wait()
        slice_RNE.copy_(gathered_RNE)
        slice_RND.copy_(gathered_RNE @ weight_ED)
    return whole_RNE.flatten(0, 1), product_RND.flatten(0, 1)
