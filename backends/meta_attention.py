"""Attention of tensors without memory, as a CPU has it: what would be kept for backward is seen without computing it.

torch itself makes scores of such tensors, which no kernel keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

_FUSED: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def as_on_cpu(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`plain` is torch's own. What is returned is called alike, and goes by the kernel that a CPU would choose."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *given: Any, **named: Any) -> Tensor:
        if given or not _is_fused(q, k, v, named):
            return plain(q, k, v, *given, **named)
        how = {name: named.get(name) for name in ("attn_mask", "scale")}
        made: Tensor = _FUSED(q, k, v, 0.0, bool(named.get("is_causal")), **how)[0]
        return made

    return attention


def _is_fused(q: Tensor, k: Tensor, v: Tensor, named: dict[str, Any]) -> bool:
    q, k, v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    mask = named.get("attn_mask")
    here = {**named, "attn_mask": None if mask is None else torch.zeros(mask.shape, dtype=mask.dtype)}
    return bool(torch._fused_sdp_choice(q, k, v, **here) == SDPBackend.FLASH_ATTENTION.value)
