"""A matrix product whose backward comes in two parts: the gradient of its input, and that of its weight.

Shapes: N tokens, D inputs, E outputs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F

from hetero.layers.weight_gradients import Kept, WeightGradients


def product(
    x: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None, weights: WeightGradients
) -> torch.Tensor:
    """(..., D) -> (..., E). Autograd gives x and bias their gradients; `weights` is handed what the weight's is made
    of, as soon as that of x is made."""
    return cast(torch.Tensor, _Product.apply(x, weight_ED, bias_E, weights))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None, weights: WeightGradients
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight_ED)
        ctx.weights = weights
        return F.linear(x, weight_ED, bias_E)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight_ED = ctx.saved_tensors
        gradient_NE = gradients[0].flatten(0, -2)
        dx = gradient_NE.mm(weight_ED).view(x.shape) if ctx.needs_input_grad[0] else None
        bias_E = gradient_NE.sum(0) if ctx.needs_input_grad[2] else None
        if ctx.needs_input_grad[1]:
            ctx.weights.take(Kept(weight_ED, x.detach().flatten(0, -2), gradient_NE))
        return dx, None, bias_E, None
