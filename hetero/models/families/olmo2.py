"""OLMo 2: Llama with its norms behind attention and MLP, and one of all query heads and one of all key heads."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families import llama
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import HeadNorm
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

ATTENTION: Table = {**llama.ATTENTION, "norm.weight": llama.LAYER + "post_attention_layernorm.weight"}
MLP: Table = {**llama.MLP, "norm.weight": llama.LAYER + "post_feedforward_layernorm.weight"}
NAMES = Names(llama.EMBEDDING, (ATTENTION, MLP), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=50304, hidden=4096, ffn=11008, layers=32, heads=32)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-5))
    bias = config.flag("attention_bias", False)
    attention = sizes.attention(
        read_rotary(config, sizes.head_dim), norm=HeadNorm(norm.eps, whole=True), qkv_bias=bias, o_bias=bias
    )
    layer = {"attention": (attention, norm), "mlp": (sizes.mlp(), norm)}
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
