"""Losses beside that of the tokens, which parts of a model make where they stand."""

from __future__ import annotations

from typing import Any, cast

import torch


class AuxiliaryLoss:
    """Those of one stage. They enter a backward where they are made, and not at the model's end: no loss of a part has
    to travel with the stream (as `MoEAuxLossAutoScaler` of Megatron does). `scale` is what gradients of the tokens'
    loss are multiplied by (the executor's `loss_scale`)."""

    def __init__(self) -> None:
        self.scale = 1.0

    def enter(self, x: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """x itself; when its backward comes, that of `loss` (a scalar, a sum over tokens) comes too."""
        return cast(torch.Tensor, _Enter.apply(x, loss, self))


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, loss: torch.Tensor, auxiliary: AuxiliaryLoss) -> torch.Tensor:
        ctx.auxiliary, ctx.like = auxiliary, (loss.dtype, loss.device)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        dtype, device = ctx.like
        return gradients[0], torch.full((), ctx.auxiliary.scale, dtype=dtype, device=device), None
