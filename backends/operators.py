"""The operators that a chip family may replace by its own, and their plain torch form.

Shapes: B batch, T time, H query heads, G key and value heads, K head dimension, D model dimension, F feed-forward; of a
product N tokens, D inputs, E outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from backends.attention_mask import AttentionMask


def rms_norm(x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Root-mean-square normalisation, computed in float32, in the type of its input."""
    wide_BTD = x_BTD.float()
    scale_BT1 = torch.rsqrt(wide_BTD.pow(2).mean(-1, keepdim=True) + eps)
    return weight_D * (wide_BTD * scale_BT1).to(x_BTD.dtype)


def offset_rms_norm(x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """The same with 1 + weight for a weight, whose product is made in float32, too (Gemma's order)."""
    wide_BTD = x_BTD.float()
    scale_BT1 = torch.rsqrt(wide_BTD.pow(2).mean(-1, keepdim=True) + eps)
    return (wide_BTD * scale_BT1 * (1.0 + weight_D.float())).to(x_BTD.dtype)


def layer_norm(x_BTD: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
    """Normalisation of mean and variance."""
    return functional.layer_norm(x_BTD, weight_D.shape, weight_D, bias_D, eps)


def rotary(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotary position embedding, pairing element i with i + K/2 (Llama's order). No gradient by the angles is asked,
    which are (B, 1, T, K) where each sample has its own."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos_TK + torch.cat((-second, first), dim=-1) * sin_TK


def attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """Causal attention; consecutive groups of H/G query heads share one key and value head. Returns BHTK."""
    shared = q_BHTK.size(1) != k_BGTK.size(1)
    return functional.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=shared)


def masked_attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: AttentionMask) -> Tensor:
    """`attention` of which each position reads what the mask lets it."""
    shared = q_BHTK.size(1) != k_BGTK.size(1)
    added = mask.added(q_BHTK)
    return functional.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=added, enable_gqa=shared)


def swiglu(gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
    """SiLU of the gate, times `up`."""
    return functional.silu(gate_BTF) * up_BTF


def geglu(gate_BTF: Tensor, up_BTF: Tensor, approximate: str) -> Tensor:
    """GELU of the gate, times `up`; `approximate` is "tanh", or "none" for the error function."""
    return functional.gelu(gate_BTF, approximate=approximate) * up_BTF


def gelu(x_BTF: Tensor, approximate: str) -> Tensor:
    """GELU alone."""
    return functional.gelu(x_BTF, approximate=approximate)


def add_product(total_ED: Tensor, gradient_NE: Tensor, x_ND: Tensor) -> None:
    """Adds gradient^T x to a sum in its own type or in float32. Narrow ones are made whole first, and then added."""
    if total_ED.dtype == x_ND.dtype:
        total_ED.addmm_(gradient_NE.t(), x_ND)
    else:
        total_ED.add_(gradient_NE.t().mm(x_ND))


@dataclass(frozen=True)
class Operators:
    """One implementation of each operator, with the signatures of the functions above.

    `own` says by operator what computes it where that is not plain torch, `refused` why a family's own did not take its
    place: see `backends/offers.py`.
    """

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    offset_rms_norm: Callable[[Tensor, Tensor, float], Tensor] = offset_rms_norm
    layer_norm: Callable[[Tensor, Tensor, Tensor | None, float], Tensor] = layer_norm
    rotary: Callable[[Tensor, Tensor, Tensor], Tensor] = rotary
    attention: Callable[[Tensor, Tensor, Tensor], Tensor] = attention
    masked_attention: Callable[[Tensor, Tensor, Tensor, AttentionMask], Tensor] = masked_attention
    swiglu: Callable[[Tensor, Tensor], Tensor] = swiglu
    geglu: Callable[[Tensor, Tensor, str], Tensor] = geglu
    gelu: Callable[[Tensor, str], Tensor] = gelu
    add_product: Callable[[Tensor, Tensor, Tensor], None] = add_product
    own: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """What `hetero doctor` tells of a chip."""
        told = (("operators of its own", self.own), ("plain", self.refused))
        return (
            "; ".join(f"{head}: {_listed(names)}" for head, names in told if names) or "all operators are plain torch"
        )


ELEMENTWISE = ("rms_norm", "offset_rms_norm", "layer_norm", "swiglu", "geglu", "gelu")
"""Those that work on each element or vector alone, and whose results others keep: what a selective recomputation
makes again, and what parts of models tell of it. Rotary keeps nothing."""


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({why})" for name, why in names.items())
