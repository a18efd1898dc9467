"""A chip that is the host's CPU, but for a norm of its own, with a backward of its own."""

from __future__ import annotations

from typing import Any

import torch

from backends.cpu import CpuBackend
from backends.offers import Offer, Operator, choose
from backends.operators import Operators


class _Norm(torch.autograd.Function):
    """Keeps its input and one number for each row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        scale = (x.float().square().mean(-1, keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale * weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        unit, wide = x * scale, gradients[0].float()
        scaled = wide * weight
        by_x = scale * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))
        return by_x.to(x.dtype), (wide * unit).flatten(0, -2).sum(0).to(weight.dtype), None


def _norm() -> Operator:
    return _Norm.apply


def _missing() -> Operator:
    raise RuntimeError("comes with toy 2.0")


class ToyBackend(CpuBackend):
    family = "toy"
    visible_devices = ("TOY_DEVICES",)

    @property
    def operators(self) -> Operators:
        return choose((Offer("rms_norm", "toy_norm", _norm), Offer("swiglu", "toy_swiglu", _missing)), self.device)
