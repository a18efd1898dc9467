"""DeepSeek-V2: latent attention, and experts chosen by softmax, perhaps group by group; the first layers are dense."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.hf_model import HfModel, config_error
from hetero.models.parts.experts import Experts
from hetero.models.parts.latent import LatentAttention
from hetero.models.parts.routing import Routing
from hetero.models.rope import read_rotary
from hetero.models.sizes import Sizes, read_sizes
from hetero.models.sparse import PROJECTIONS, expert_names, read_chosen, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Table

_LAYER = "model.layers.{layer}."
ATTENTION: Table = {
    "norm.weight": f"{_LAYER}input_layernorm.weight",
    **{f"{ours}.weight": f"{_LAYER}self_attn.{name}.weight" for ours, name in {
        "q": "q_proj", "q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj",
        "kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "o": "o_proj",
    }.items()},
}  # fmt: skip
SHARED = "shared_experts"
NAMES = sparse_names(expert_names("mlp", PROJECTIONS, SHARED), ATTENTION)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=102400, hidden=4096, ffn=11008, layers=32, heads=32)
    read_fixed(config, {"mlp_bias": False, "scoring_func": "softmax", "norm_topk_prob": False})
    dense, count = config.optional("first_k_dense_replace", 0) or 0, config.integer("n_routed_experts", 64)
    method = config.choice("topk_method", "greedy", ("greedy", "group_limited_greedy"))
    groups, chosen_groups = read_groups(config, count, 1, 1, least=1)
    limited, chosen = method == "group_limited_greedy", read_chosen(config, count, 2)
    routing = Routing(
        count,
        chosen,
        scale=config.number("routed_scaling_factor", 1.0),
        groups=groups if limited else 1,
        chosen_groups=chosen_groups if limited else 1,
        auxiliary=read_own_auxiliary(config, chosen),
    )
    attention = latent_attention(config, sizes, 1536, interleaved=True)
    experts = routed_and_shared(config, sizes, routing, 1407, 2)
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    config.finish()
    return sparse_decoder(sizes, eps, attention, experts, range(dense, sizes.layers), tied)


def read_fixed(config: Config, others: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """What must be as it is in all models of these types, `but` for what a type reads for itself."""
    common = {"hidden_act": "silu", "attention_bias": False, "pretraining_tp": 1, "moe_layer_freq": 1, "ep_size": 1}
    for key, value in {**common, **others}.items():
        if key not in but:
            config.only(key, value)
    config.without_dropout("attention_dropout")


def latent_attention(config: Config, sizes: Sizes, query_latent: int, interleaved: bool) -> LatentAttention:
    if sizes.kv_heads != sizes.heads:
        rule = f"every head has a key of its own, and there are {sizes.heads}"
        raise config_error("num_key_value_heads", sizes.kv_heads, rule, "leave it out")
    plain, turning = config.integer("qk_nope_head_dim", 128), config.integer("qk_rope_head_dim", 64)
    for key in ("head_dim", "qk_head_dim"):  # what these are, or their sum
        config.optional(key, None)
    value = config.integer("v_head_dim", 128)
    if value > plain + turning:
        rule = f"a value is no wider than a key, which has {plain + turning}"
        raise config_error("v_head_dim", value, rule, "use another model")
    return LatentAttention(
        sizes.hidden,
        sizes.heads,
        config.optional("q_lora_rank", query_latent) or 0,
        config.integer("kv_lora_rank", 512),
        plain,
        read_rotary(config, turning, interleaved=interleaved),
        value,
        _scale(config, plain + turning),
        sizes.initial,
        sizes.into_stream,
    )


def _scale(config: Config, key: int) -> float:
    """Of scores: positions that were stretched are sharpened by yarn's `mscale_all_dim`."""
    told = config.optional("rope_scaling", None) or config.optional("rope_parameters", None) or {}
    factor, of = told.get("factor", 1.0), told.get("mscale_all_dim") or 0.0
    stretched = told.get("rope_type", told.get("type", "default")) != "default" and of and factor > 1
    mscale = 0.1 * of * math.log(factor) + 1.0 if stretched else 1.0
    return key**-0.5 * mscale * mscale


def routed_and_shared(config: Config, sizes: Sizes, routing: Routing, width: int, shared: int) -> Experts:
    """`width` and `shared` are of an expert and how many are shared, where config.json has neither."""
    width = config.integer("moe_intermediate_size", width)
    shared_ffn = width * config.integer("n_shared_experts", shared)
    return Experts(sizes.hidden, width, routing, sizes.initial, sizes.into_stream, shared_ffn=shared_ffn)


def read_groups(config: Config, experts: int, groups: int, chosen: int, least: int) -> tuple[int, int]:
    """How many groups there are, and a token chooses among; a group has at least so many experts."""
    groups, chosen = config.integer("n_group", groups), config.integer("topk_group", chosen)
    if experts % groups or experts // groups < least:
        rule = f"groups are of equal size, and have at least {least} of the {experts} experts"
        raise config_error("n_group", groups, rule, "correct it")
    if chosen > groups:
        raise config_error("topk_group", chosen, f"there are {groups} groups", "correct one of them")
    return groups, chosen


def read_own_auxiliary(config: Config, chosen: int) -> float:
    """DeepSeek's own loss, whose shares sum to one over a token's experts; transformers trains without it, and tells
    `output_router_logits` alone."""
    config.only("output_router_logits", False)
    told = config.number("aux_loss_alpha", 0.0)
    config.only("seq_aux", True)
    return told / chosen


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
