"""Qwen3 with experts in some layers: norms of each query and key head, and none that all tokens share."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import HeadNorm
from hetero.models.parts.experts import Experts
from hetero.models.parts.routing import Routing
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.sparse import (
    PROJECTIONS,
    expert_names,
    read_auxiliary,
    read_chosen,
    read_stepped,
    sparse_decoder,
    sparse_names,
)
from hetero.models.weight_map import WeightMap

NAMES = sparse_names(expert_names("mlp", PROJECTIONS))


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151936, hidden=2048, ffn=6144, layers=24, heads=32, kv_heads=4)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    count = config.integer("num_local_experts", config.integer("num_experts", 128))
    sparse = read_stepped(config, sizes.layers)
    routing = Routing(
        count,
        read_chosen(config, count, 8),
        normalised=config.flag("norm_topk_prob", False),
        auxiliary=read_auxiliary(config, sparse),
    )
    width, eps = config.integer("moe_intermediate_size", 768), config.number("rms_norm_eps", 1e-6)
    tied, bias = config.flag("tie_word_embeddings", False), config.flag("attention_bias", False)
    window = config.optional("sliding_window", 4096)
    window = window if config.flag("use_sliding_window", False) else None
    config.optional("max_window_layers", None)  # all layers have the window, where any has
    rotary = read_rotary(config, sizes.head_dim)
    config.finish()
    attention = sizes.attention(rotary, norm=HeadNorm(eps), qkv_bias=bias, o_bias=bias, window=window)
    experts = Experts(sizes.hidden, width, routing, sizes.initial, sizes.into_stream)
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
