"""GLM-4.5: experts as DeepSeek-V3 has them, over attention part of whose heads turns, perhaps with norms of heads."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.families.deepseek_v2 import SHARED, read_fixed, routed_and_shared
from hetero.models.families.deepseek_v3 import CORRECTION, corrected_routing
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention import HeadNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.sparse import PROJECTIONS, expert_names, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap

NAMES = sparse_names(expert_names("mlp", PROJECTIONS, SHARED, CORRECTION))


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    hidden, heads = config.integer("hidden_size", 4096), config.integer("num_attention_heads", 96)
    common = {"head_dim": hidden // heads}  # which does not divide it by itself
    sizes = read_sizes(config, vocab=151552, hidden=4096, ffn=10944, layers=46, heads=96, kv_heads=8, **common)
    bias = config.flag("attention_bias", False)
    read_fixed(config, {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}, but=("attention_bias",))
    dense = config.optional("first_k_dense_replace", 1) or 0
    routing = corrected_routing(config, experts=128, groups=1, chosen_groups=1, scale=1.0)
    experts = routed_and_shared(config, sizes, routing, 1408, 1)
    eps, tied = config.number("rms_norm_eps", 1e-5), config.flag("tie_word_embeddings", False)
    norm = HeadNorm(eps) if config.flag("use_qk_norm", False) else None
    attention = sizes.attention(read_rotary(config, sizes.head_dim, partial=0.5), qkv_bias=bias, norm=norm)
    config.finish()
    return sparse_decoder(sizes, eps, attention, experts, range(dense, sizes.layers), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
