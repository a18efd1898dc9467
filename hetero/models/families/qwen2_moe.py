"""Qwen2 with experts in some layers, and beside them one that all tokens share, behind a gate."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import FULL, SLIDING, read_layer_types
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

NAMES = sparse_names(
    expert_names("mlp", PROJECTIONS, "shared_expert", {"shared.weight.weight": "shared_expert_gate.weight"})
)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151936, hidden=2048, ffn=5632, layers=24, heads=16, kv_heads=16)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
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
    rotary, bias = read_rotary(config, sizes.head_dim), config.flag("qkv_bias", True)
    windows = _windows(config, sizes.layers)
    config.finish()
    attention = [sizes.attention(rotary, qkv_bias=bias, window=window) for window in windows]
    experts = Experts(
        sizes.hidden, width, routing, sizes.initial, sizes.into_stream, shared_ffn=shared, shared_gate=True
    )
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def _windows(config: Config, layers: int) -> list[int | None]:
    """Of each layer: every other one of the first has one, where any has."""
    window = config.optional("sliding_window", 4096) if config.flag("use_sliding_window", False) else None
    config.optional("sliding_window", None)
    first = config.optional("max_window_layers", 28)
    types = [SLIDING if window and not layer % 2 and layer < first else FULL for layer in range(layers)]
    return [window if kind == SLIDING else None for kind in read_layer_types(config, types)]


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
