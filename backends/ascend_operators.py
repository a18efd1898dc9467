"""Operators of Huawei's stack, as torch_npu hands them on, each with a backward of its own.

Heads go in as projections make them, (B, T, H, K), which is how they lie in memory: no kernel waits for a copy.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from backends.attention_mask import AttentionMask
from backends.offers import Offer, Operator

_WHOLE, _CAUSAL, _BAND, _BLOCK = 1, 2, 4, 2048
"""The kernel's numbers for masks, and the size of the block that stands for those that are not given whole."""
_SEQUENCES = 1024
"""Of many lengths: the kernel takes no more."""


def _rms_norm() -> Operator:
    kernel = _kernel("npu_rms_norm")
    return lambda x_BTD, weight_D, eps: kernel(x_BTD, weight_D, epsilon=eps)[0]


def _rotary() -> Operator:
    kernel = _kernel("npu_rotary_mul")

    def rotary(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """The kernel's angles are of one sample: where each has its own, all are taken for one."""
        x_BTHK, angles = x_BHTK.transpose(1, 2), (cos_TK, sin_TK)
        rows = x_BTHK if cos_TK.dim() == 2 else x_BTHK.flatten(0, 1)[None]
        turned: Tensor = kernel(rows, *(part.reshape(1, -1, 1, part.size(-1)) for part in angles))
        return turned.view(x_BTHK.shape).transpose(1, 2)

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


def _masked_attention() -> Operator:
    """Documents are sequences of many lengths, a window is a band. Where documents are too many for that, the kernel is
    given the whole mask."""
    kernel = _kernel("npu_fusion_attention")

    def attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: AttentionMask) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q_BHTK, k_BGTK, v_BGTK))
        place = {"atten_mask": _later(q.device), "sparse_mode": _CAUSAL}
        if mask.window is not None:
            place |= {"sparse_mode": _BAND, "pre_tockens": mask.window - 1, "next_tockens": 0}
        common, layout = {"scale": q.size(-1) ** -0.5}, "BSND"
        if mask.documents_BT is not None and len(mask.ends) <= _SEQUENCES:
            layout, common = "TND", common | {"actual_seq_qlen": mask.ends, "actual_seq_kvlen": mask.ends}
            q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        elif mask.documents_BT is not None:
            place = {"atten_mask": mask.added(q_BHTK).isinf(), "sparse_mode": _WHOLE}
        y: Tensor = kernel(q, k, v, q.size(-2), layout, **common, **place)[0]
        return y.view(q_BHTK.transpose(1, 2).shape).transpose(1, 2)

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
    Offer("masked_attention", "npu_fusion_attention", _masked_attention),
    Offer("swiglu", "npu_swiglu", _swiglu),
)
