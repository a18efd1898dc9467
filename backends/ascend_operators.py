"""Operators of Huawei's stack, as torch_npu hands them on, each with a backward of its own.

Heads go in as projections make them, (B, T, H, K), which is how they lie in memory: no kernel waits for a copy.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from backends.offers import Offer, Operator

_CAUSAL, _BLOCK = 2, 2048
"""The kernel's number for a causal mask, and the size of the block that stands for it."""


def _rms_norm() -> Operator:
    kernel = _kernel("npu_rms_norm")
    return lambda x_BTD, weight_D, eps: kernel(x_BTD, weight_D, epsilon=eps)[0]


def _rotary() -> Operator:
    kernel = _kernel("npu_rotary_mul")

    def rotary(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        turned: Tensor = kernel(x_BHTK.transpose(1, 2), cos_TK[None, :, None], sin_TK[None, :, None])
        return turned.transpose(1, 2)

    return rotary


def _attention() -> Operator:
    """Takes grouped heads as they are, and skips what lies after the diagonal."""
    kernel = _kernel("npu_fusion_attention")

    def attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q_BHTK, k_BGTK, v_BGTK))
        place = {"atten_mask": _later(q.device), "sparse_mode": _CAUSAL}
        y_BTHK: Tensor = kernel(q, k, v, q.size(2), "BSND", scale=q.size(-1) ** -0.5, **place)[0]
        return y_BTHK.transpose(1, 2)

    return attention


def _swiglu() -> Operator:
    """Wants both in one tensor. Putting them there costs what it saves forward; backward is one kernel for three."""
    kernel = _kernel("npu_swiglu")
    return lambda gate_BTF, up_BTF: kernel(torch.cat((gate_BTF, up_BTF), dim=-1))


def _kernel(name: str) -> Any:
    return getattr(import_module("torch_npu"), name)


@cache
def _later(device: torch.device) -> Tensor:
    """Of a block's positions, which come after another: what the kernel is given for a causal mask of any length."""
    return torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=device).triu(1)


OFFERS = (
    Offer("rms_norm", "npu_rms_norm", _rms_norm),
    Offer("rotary", "npu_rotary_mul", _rotary),
    Offer("attention", "npu_fusion_attention", _attention),
    Offer("swiglu", "npu_swiglu", _swiglu),
)
