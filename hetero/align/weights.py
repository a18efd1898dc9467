"""Values of one tensor beside those of another."""

from __future__ import annotations

import torch

from hetero.align.difference import Difference

ROUNDED = ("bfloat16", "float16")


def difference(found: torch.Tensor, wanted: torch.Tensor) -> Difference | None:
    """None where they are equal."""
    wanted = wanted.to(found.dtype)
    if torch.equal(found, wanted):
        return None
    items = _differing(found, wanted) if found.dim() == 3 else ()
    return Difference(_how(found, wanted), items if len(items) < len(found) else ())


def _differing(found: torch.Tensor, wanted: torch.Tensor) -> tuple[int, ...]:
    return tuple(number for number in range(len(found)) if not torch.equal(found[number], wanted[number]))


def _how(found: torch.Tensor, wanted: torch.Tensor) -> str:
    if found.dim() > 1 and found.shape[-1] == found.shape[-2] and torch.equal(found, wanted.transpose(-1, -2)):
        return "it is transposed"
    for name in ROUNDED:
        if torch.equal(found, wanted.to(getattr(torch, name)).to(found.dtype)):
            return f"it is rounded to {name}"
    return "other values"
