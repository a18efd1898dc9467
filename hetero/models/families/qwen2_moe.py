"""Qwen2 with experts in some layers, and beside them one that all tokens share, behind a gate."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import Attention
from hetero.models.parts.experts import Experts
from hetero.models.parts.routing import Routing
from hetero.models.rope import read_theta
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

NAMES = sparse_names(
    expert_names("mlp", PROJECTIONS, "shared_expert", {"shared.weight.weight": "shared_expert_gate.weight"})
)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151936, hidden=2048, ffn=5632, layers=24, heads=16, kv_heads=16)
    for key, value in {"hidden_act": "silu", "attention_dropout": 0.0, "use_sliding_window": False}.items():
        config.only(key, value)
    for key in ("sliding_window", "max_window_layers", "layer_types"):  # say nothing without it
        config.optional(key, None)
    count, sparse = config.integer("num_experts", 60), read_stepped(config, sizes.layers)
    routing = Routing(
        count,
        read_chosen(config, count, 4),
        normalised=config.flag("norm_topk_prob", False),
        auxiliary=read_auxiliary(config, sparse),
    )
    width, shared = (
        config.integer("moe_intermediate_size", 1408),
        config.integer("shared_expert_intermediate_size", 5632),
    )
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    theta, bias = read_theta(config, sizes.head_dim), config.flag("qkv_bias", True)
    config.finish()
    initial, into_stream = sizes.initial, sizes.into_stream
    attention = Attention(sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_dim, theta, bias, initial, into_stream)
    experts = Experts(sizes.hidden, width, routing, initial, into_stream, shared_ffn=shared, shared_gate=True)
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
