"""Mixtral: Llama with experts in every layer; the weights of a token's experts sum to one."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import Attention
from hetero.models.parts.experts import Experts
from hetero.models.parts.routing import Routing
from hetero.models.rope import read_theta
from hetero.models.sizes import read_sizes
from hetero.models.sparse import expert_names, read_auxiliary, read_chosen, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap

NAMES = sparse_names(expert_names("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}))


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=14336, layers=32, heads=32, kv_heads=8)
    for key, value in {"hidden_act": "silu", "attention_dropout": 0.0, "router_jitter_noise": 0.0}.items():
        config.only(key, value)
    config.only("sliding_window", None)
    count, sparse = config.integer("num_local_experts", 8), range(sizes.layers)
    routing = Routing(count, read_chosen(config, count, 2), normalised=True, auxiliary=read_auxiliary(config, sparse))
    eps, tied = config.number("rms_norm_eps", 1e-5), config.flag("tie_word_embeddings", False)
    theta = read_theta(config, sizes.head_dim, 1e6)
    config.finish()
    initial, into_stream = sizes.initial, sizes.into_stream
    attention = Attention(sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_dim, theta, False, initial, into_stream)
    return sparse_decoder(
        sizes, eps, attention, Experts(sizes.hidden, sizes.ffn, routing, initial, into_stream), sparse, tied
    )


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
