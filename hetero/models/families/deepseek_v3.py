"""DeepSeek-V3: latent attention, and experts chosen by sigmoid scores with a correction, group by group; the first
layers are dense."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.families.deepseek_v2 import (
    ATTENTION,
    SHARED,
    latent_attention,
    read_fixed,
    read_groups,
    read_own_auxiliary,
    routed_and_shared,
)
from hetero.models.hf_model import HfModel
from hetero.models.parts.routing import Routing
from hetero.models.sizes import read_sizes
from hetero.models.sparse import PROJECTIONS, expert_names, read_chosen, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap

NAMES = sparse_names(
    expert_names("mlp", PROJECTIONS, SHARED, {"router.correction": "gate.e_score_correction_bias"}), ATTENTION
)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=129280, hidden=7168, ffn=18432, layers=61, heads=128, kv_heads=128)
    read_fixed(config, {"scoring_func": "sigmoid", "topk_method": "noaux_tc"})
    for key in ("num_mtp_layers", "num_nextn_predict_layers"):  # of layers that predict beyond the next token
        config.optional(key, None)
    dense, count = config.optional("first_k_dense_replace", 3) or 0, config.integer("n_routed_experts", 256)
    sparse = range(dense, sizes.layers)
    groups, chosen_groups = read_groups(config, count, 8, 4, least=2)
    chosen = read_chosen(config, count, 8)
    routing = Routing(
        count,
        chosen,
        "sigmoid",
        normalised=config.flag("norm_topk_prob", True),
        scale=config.number("routed_scaling_factor", 2.5),
        groups=groups,
        chosen_groups=chosen_groups,
        best_of_group=2,
        correction=True,
        auxiliary=read_own_auxiliary(config, chosen),
    )
    attention = latent_attention(config, sizes, 1536, config.flag("rope_interleave", True))
    experts = routed_and_shared(config, sizes, routing, 2048, 1)
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    config.finish()
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
