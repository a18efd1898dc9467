"""Mixtral: Llama with experts in every layer; the weights of a token's experts sum to one."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.parts.experts import Experts
from hetero.models.parts.routing import Routing
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.sparse import expert_names, read_auxiliary, read_chosen, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap

NAMES = sparse_names(expert_names("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}))


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=14336, layers=32, heads=32, kv_heads=8)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout", "router_jitter_noise")
    count, sparse = config.integer("num_local_experts", 8), range(sizes.layers)
    routing = Routing(count, read_chosen(config, count, 2), normalised=True, auxiliary=read_auxiliary(config, sparse))
    eps, tied = config.number("rms_norm_eps", 1e-5), config.flag("tie_word_embeddings", False)
    attention = sizes.attention(
        read_rotary(config, sizes.head_dim, 1e6), window=config.optional("sliding_window", None)
    )
    config.finish()
    experts = Experts(sizes.hidden, sizes.ffn, routing, sizes.initial, sizes.into_stream)
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
