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

CORRECTION = {"router.correction": "gate.e_score_correction_bias"}
NAMES = sparse_names(expert_names("mlp", PROJECTIONS, SHARED, CORRECTION), ATTENTION)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=129280, hidden=7168, ffn=18432, layers=61, heads=128, kv_heads=128)
    read_fixed(config, {"scoring_func": "sigmoid", "topk_method": "noaux_tc"})
    dense = config.optional("first_k_dense_replace", 3) or 0
    routing = corrected_routing(config, experts=256, groups=8, chosen_groups=4, scale=2.5)
    attention = latent_attention(config, sizes, 1536, config.flag("rope_interleave", True))
    experts = routed_and_shared(config, sizes, routing, 2048, 1)
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    config.finish()
    return sparse_decoder(sizes, eps, attention, experts, range(dense, sizes.layers), tied)


def corrected_routing(config: Config, experts: int, groups: int, chosen_groups: int, scale: float) -> Routing:
    """Given is what the family has where config.json says nothing."""
    for key in ("num_mtp_layers", "num_nextn_predict_layers"):  # of layers that predict beyond the next token
        config.optional(key, None)
    count = config.integer("n_routed_experts", experts)
    groups, chosen_groups = read_groups(config, count, groups, chosen_groups, least=2)
    chosen = read_chosen(config, count, 8)
    return Routing(
        count,
        chosen,
        "sigmoid",
        normalised=config.flag("norm_topk_prob", True),
        scale=config.number("routed_scaling_factor", scale),
        groups=groups,
        chosen_groups=chosen_groups,
        best_of_group=2,
        correction=True,
        auxiliary=read_own_auxiliary(config, chosen),
    )


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
