"""Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU; head and embedding may share a weight."""

from __future__ import annotations

import math

from hetero.layers.spec import Normal
from hetero.models.architecture import Architecture, decoder
from hetero.models.dimensions import Dimensions
from hetero.models.parts.attention import Attention
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.head import Head
from hetero.models.parts.mlp import SwiGLU
from hetero.models.parts.norm import RMSNorm

_STD = 0.02


def describe(dims: Dimensions) -> Architecture:
    """Projections that add to the residual stream start smaller, so that it does not grow with depth (GPT-2)."""
    initial, into_stream = Normal(_STD), Normal(_STD / math.sqrt(2 * dims.layers))
    norm = RMSNorm(dims.hidden, dims.norm_eps)
    attention = Attention(
        dims.hidden, dims.heads, dims.kv_heads, dims.head_dim, dims.rope_theta, dims.qkv_bias, initial, into_stream
    )
    mlp = SwiGLU(dims.hidden, dims.ffn, initial, into_stream)
    layer = {"attention": (norm, attention), "mlp": (norm, mlp)}
    embedding, head = Embedding(dims.vocab, dims.hidden, initial), Head(dims.vocab, dims.hidden, initial)
    return decoder(embedding, [layer] * dims.layers, (norm, head), dims.tie_embeddings)
