"""Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU; head and embedding may share a weight."""

from __future__ import annotations

from hetero.layers.frequencies import Rotary
from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import Sizes, read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

LAYER = "model.layers.{layer}."
ATTENTION: Table = {
    "norm.weight": LAYER + "input_layernorm.weight",
    **{f"{part}.{kind}": f"{LAYER}self_attn.{part}_proj.{kind}" for part in "qkvo" for kind in ("weight", "bias")},
    **{f"{part}_norm.weight": f"{LAYER}self_attn.{part}_norm.weight" for part in "qk"},
}
MLP: Table = {
    "norm.weight": LAYER + "post_attention_layernorm.weight",
    **{f"{part}.{kind}": f"{LAYER}mlp.{part}_proj.{kind}" for part in ("gate", "up", "down")
       for kind in ("weight", "bias")},
}  # fmt: skip
EMBEDDING: Table = {"embedding.weight": "model.embed_tokens.weight"}
HEAD: Table = {
    "norm.weight": "model.norm.weight",
    "norm.bias": "model.norm.bias",
    "head.weight": "lm_head.weight",
}
NAMES = Names(EMBEDDING, (ATTENTION, MLP), HEAD)


def describe(description: ModelDescription) -> Architecture:
    if isinstance(description, Dimensions):
        return _of_dimensions(description)
    config = Config(description)
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=11008, layers=32, heads=32)
    config.only("hidden_act", "silu")
    config.only("pretraining_tp", 1)
    config.without_dropout("attention_dropout")
    bias = config.flag("attention_bias", False)
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6))
    attention = sizes.attention(read_rotary(config, sizes.head_dim), qkv_bias=bias, o_bias=bias)
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp(bias=config.flag("mlp_bias", False)))}
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def _of_dimensions(dims: Dimensions) -> Architecture:
    sizes = Sizes(dims.layers, dims.hidden, dims.heads, dims.kv_heads, dims.head_dim, dims.ffn, dims.vocab, 0.02)
    norm = RMSNorm(dims.hidden, dims.norm_eps)
    attention = sizes.attention(Rotary.plain(dims.rope_theta, dims.head_dim), qkv_bias=dims.qkv_bias)
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp())}
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), dims.tie_embeddings)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
