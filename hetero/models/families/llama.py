"""Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU; head and embedding may share a weight."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import Attention
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.head import Head
from hetero.models.parts.mlp import SwiGLU
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_theta
from hetero.models.sizes import Sizes, read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

ATTENTION: Table = {
    "norm.weight": "model.layers.{layer}.input_layernorm.weight",
    **{f"{part}.{kind}": f"model.layers.{{layer}}.self_attn.{part}_proj.{kind}" for part in "qkvo"
       for kind in ("weight", "bias")},
}  # fmt: skip
MLP: Table = {
    "norm.weight": "model.layers.{layer}.post_attention_layernorm.weight",
    **{f"{part}.weight": f"model.layers.{{layer}}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")},
}
EMBEDDING: Table = {"embedding.weight": "model.embed_tokens.weight"}
HEAD: Table = {"norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
NAMES = Names(EMBEDDING, (ATTENTION, MLP), HEAD)


def describe(description: ModelDescription) -> Architecture:
    if isinstance(description, Dimensions):
        dims = description
        sizes = Sizes(dims.layers, dims.hidden, dims.heads, dims.kv_heads, dims.head_dim, dims.ffn, dims.vocab, 0.02)
        return llama(sizes, dims.norm_eps, dims.rope_theta, dims.qkv_bias, dims.tie_embeddings)
    config = Config(description)
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=11008, layers=32, heads=32)
    config.only("hidden_act", "silu")
    for key, value in {
        "attention_dropout": 0.0,
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
    }.items():
        config.only(key, value)
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    theta = read_theta(config, sizes.head_dim)
    config.finish()
    return llama(sizes, eps, theta, qkv_bias=False, tied=tied)


def llama(sizes: Sizes, eps: float, theta: float, qkv_bias: bool, tied: bool) -> Architecture:
    initial, into_stream = sizes.initial, sizes.into_stream
    norm = RMSNorm(sizes.hidden, eps)
    attention = Attention(
        sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_dim, theta, qkv_bias, initial, into_stream
    )
    mlp = SwiGLU(sizes.hidden, sizes.ffn, initial, into_stream)
    layer = {"attention": (norm, attention), "mlp": (norm, mlp)}
    embedding, head = Embedding(sizes.vocab, sizes.hidden, initial), Head(sizes.vocab, sizes.hidden, initial)
    return decoder(embedding, [layer] * sizes.layers, (norm, head), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
