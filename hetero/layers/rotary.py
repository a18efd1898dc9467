"""Rotary position angles; those of plain positions 0, 1, 2, ... are made once for each length, device and type."""

from __future__ import annotations

from functools import lru_cache

import torch

Angles = tuple[torch.Tensor, torch.Tensor]


@lru_cache(maxsize=64)
def plain_angles(theta: float, head_dim: int, length: int, device: torch.device, dtype: torch.dtype) -> Angles:
    """`angles_at` for positions 0..length-1. The tensors are shared by all callers: read only."""
    with torch.inference_mode(False):
        return angles_at(torch.arange(length), theta, head_dim, device, dtype)


def angles_of(plain: Angles, positions_BT: torch.Tensor) -> Angles:
    """(cos_B1TK, sin_B1TK) of positions that each sample has its own of, out of the plain ones."""
    cos_TK, sin_TK = plain
    return cos_TK[positions_BT][:, None], sin_TK[positions_BT][:, None]


def angles_at(
    positions_T: torch.Tensor, theta: float, head_dim: int, device: torch.device, dtype: torch.dtype
) -> Angles:
    """(cos_TK, sin_TK), K = head_dim, its two halves alike; taken in float64 on the host, whatever the device."""
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle_TK = torch.outer(positions_T.cpu().double(), frequency).repeat(1, 2)
    return angle_TK.cos().to(device, dtype), angle_TK.sin().to(device, dtype)
