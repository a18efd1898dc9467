"""How the values of one tensor differ from those of another."""

from __future__ import annotations

import torch

MOST_NAMED = 3
ROUNDED = ("bfloat16", "float16")


def difference(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """In words; "" where they are equal. Of a stack, which of its items differ."""
    wanted = wanted.to(found.dtype)
    if torch.equal(found, wanted):
        return ""
    if found.dim() == 3 and len(items := _differing(found, wanted)) < len(found):
        more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
        return f"differs in {', '.join(map(str, items[:MOST_NAMED]))}{more} of {len(found)}: {_how(found, wanted)}"
    return f"differs: {_how(found, wanted)}"


def _differing(found: torch.Tensor, wanted: torch.Tensor) -> list[int]:
    return [number for number in range(len(found)) if not torch.equal(found[number], wanted[number])]


def _how(found: torch.Tensor, wanted: torch.Tensor) -> str:
    if found.dim() > 1 and found.shape[-1] == found.shape[-2] and torch.equal(found, wanted.transpose(-1, -2)):
        return "it is transposed"
    for name in ROUNDED:
        if torch.equal(found, wanted.to(getattr(torch, name)).to(found.dtype)):
            return f"it is rounded to {name}"
    return "other values"
