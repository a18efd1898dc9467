"""How a model makes logits: whether what it does with its head's product is a scale and a cap."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from hetero.models.provided.skeleton import Logits, Skeleton

_LARGE = 1e6, 2e6
"""Beyond what a cap lets through."""


class Bend(NamedTuple):
    """Of logits: times a `scale`, then no more than a `cap`."""

    scale: float
    cap: float | None

    def of(self, x: torch.Tensor) -> torch.Tensor:
        bent = x * self.scale
        return bent if self.cap is None else self.cap * torch.tanh(bent / self.cap)


class _Chosen(nn.Module):
    """Stands in the product's place: each of its outputs is one of its inputs, and more by `bias`."""

    def __init__(self, product: nn.Linear, bias: float = 0.0) -> None:
        super().__init__()
        self._inputs, self._bias = torch.arange(product.out_features) % product.in_features, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., self._inputs] + self._bias


def bend_of(skeleton: Skeleton, head: nn.Linear) -> Bend | None:
    """None where logits are made in another way: of some of the outputs, or of several positions' at once."""
    plain = skeleton.behind(_Chosen(head))
    x = 5.0 * torch.randn(1, 3, head.in_features, generator=torch.Generator().manual_seed(0))
    found = _guess(plain, x)
    bias = 0.0 if head.bias is None else 1.0
    product = _Chosen(head, bias)
    made, wanted = skeleton.behind(product)(x), found.of(product(x))
    same = made.shape == wanted.shape and torch.allclose(made.float(), wanted, rtol=1e-5, atol=1e-6)
    return found if same else None


def _guess(logits: Logits, x: torch.Tensor) -> Bend:
    """By three vectors: what grows no more has met a cap."""
    one, much, twice = (float(logits(torch.full_like(x, value)).flatten()[0]) for value in (1.0, *_LARGE))
    if not math.isclose(much, twice, rel_tol=1e-4):
        return Bend(one, None)
    scale = much * math.atanh(one / much)
    return Bend(1.0 if math.isclose(scale, 1.0, rel_tol=1e-5) else scale, much)
