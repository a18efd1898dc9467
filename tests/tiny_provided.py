"""A tiny model of each type that may run on transformers' own modules, as its config.json has it."""

from __future__ import annotations

from functools import cache
from typing import Any

from hetero.models.hf_model import HfModel
from hetero.models.registry import family_names

_SIZES: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": None, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "n_ctx": 64, "n_inner": 48, "head_dim": 8, "rotary_dim": 4, "max_position_embeddings": 64,
    "moe_intermediate_size": 20, "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_num_experts": 4, "moe_topk": 2, "moe_k": 2,
    "shared_expert_intermediate_size": 28, "n_group": 1, "topk_group": 1, "num_expert_group": 1,
    "kv_lora_rank": 24, "q_lora_rank": 28, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "sliding_window": 7, "attention_dropout": 0.0, "residual_dropout": 0.0,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
"""Of each what the type's configuration has."""

_LATENT = {"num_key_value_heads": 4}
_LINEAR_FIRST = {"layer_types": ["linear_attention", "full_attention"]}
TINY_PROVIDED: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": {**_LATENT, **_LINEAR_FIRST},
    "deepseek_v32": _LATENT,
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": _LATENT,
    "glm4_moe_lite": _LATENT,
    "kimi_linear": {**_LATENT, **_LINEAR_FIRST},
    "longcat_flash": _LATENT,
    "minicpm3": _LATENT,
    "ministral": {"head_dim": 8},
}


@cache
def tiny_provided(kind: str) -> HfModel:
    from transformers import CONFIG_MAPPING

    known = CONFIG_MAPPING[kind]().to_dict()
    sizes = {name: value for name, value in _SIZES.items() if known.get(name) is not None or name == "pad_token_id"}
    return HfModel.of({"model_type": kind, **sizes, **TINY_PROVIDED.get(kind, {})})


def _types() -> list[str]:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    found = {kind: CONFIG_MAPPING[kind] for kind in NAMES if kind in CONFIG_MAPPING and kind not in family_names()}
    plans = "base_model_pp_plan", "base_model_tp_plan"
    return sorted(kind for kind, config in found.items() if all(getattr(config, plan, None) for plan in plans))


for _kind in _types():
    TINY_PROVIDED.setdefault(_kind, {})
