"""Rotary position angles; those of plain positions 0, 1, 2, ... are made once for each length, device and type.

Shapes: B samples, H heads, T positions, K head size, R elements of it that turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from hetero.layers.frequencies import Rotary

Angles = tuple[torch.Tensor, torch.Tensor]
Turn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@lru_cache(maxsize=64)
def plain_angles(rotary: Rotary, length: int, device: torch.device, dtype: torch.dtype) -> Angles:
    """`angles_at` for positions 0..length-1. The tensors are shared by all callers: read only."""
    with torch.inference_mode(False):
        return angles_at(torch.arange(length), rotary, length, device, dtype)


def angles_of(plain: Angles, positions_BT: torch.Tensor) -> Angles:
    """(cos_B1TR, sin_B1TR) of positions that each sample has its own of, out of the plain ones."""
    cos_TR, sin_TR = plain
    return cos_TR[positions_BT][:, None], sin_TR[positions_BT][:, None]


def angles_at(
    positions_T: torch.Tensor, rotary: Rotary, length: int, device: torch.device, dtype: torch.dtype
) -> Angles:
    """(cos_TR, sin_TR) in samples of `length`, two halves alike; taken in float64 on the host, whatever the device."""
    frequency = torch.tensor(rotary.of_length(length), dtype=torch.float64)
    angle_TR = torch.outer(positions_T.cpu().double(), frequency).repeat(1, 2)
    cos_TR, sin_TR = (rotary.factor * made for made in (angle_TR.cos(), angle_TR.sin()))
    return cos_TR.to(device, dtype), sin_TR.to(device, dtype)


def turned(x_BHTK: torch.Tensor, rotary: Rotary, angles: Angles, turn: Turn) -> torch.Tensor:
    """The heads with their first elements turned by the operator `turn`, in memory as (B, T, H, K). Interleaved pairs
    are left as halves: a query's product with a key that is left so, too, is the same."""
    if rotary.dim == x_BHTK.size(-1) and not rotary.interleaved:
        return turn(x_BHTK, *angles)
    x_BTHR, rest = x_BHTK.transpose(1, 2).tensor_split((rotary.dim,), dim=-1)
    if rotary.interleaved:
        x_BTHR = x_BTHR.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    made_BHTR = turn(x_BTHR.transpose(1, 2), *angles)
    return torch.cat((made_BHTR.transpose(1, 2), rest), dim=-1).transpose(1, 2) if rest.size(-1) else made_BHTR
