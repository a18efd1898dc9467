"""A tiny model of each type that runs on transformers' own modules, as its config.json has it."""

from __future__ import annotations

from typing import Any

from hetero.models.hf_model import HfModel

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
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_PLAIN = (
    "afmoe", "apertus", "apertus1p5_text", "arcee", "aria_text", "beam", "codegen", "cohere", "cohere2_moe", "cwm",
    "doge", "ernie4_5", "ernie4_5_moe", "exaone", "exaone4", "exaone_moe", "flex_olmo", "flint", "glm", "gptj",
    "granite_swa", "helium", "hy_v3", "hyperclovax", "internlm3", "inkling_text",
    "iquestcoder", "jais2", "kolibri1", "laguna",
    "mellum", "mimo_v2_flash", "minimax", "minimax_m2", "minimax_m3_vl_text", "ministral3", "olmo", "olmo3",
    "olmo_hybrid", "phi", "sarvam_moe", "seed_oss", "solar_open", "vaultgemma",
)  # fmt: skip
_WITH_LATENT = ("axk1", "axk2", "deepseek_v32", "dots3_note_text", "glm4_moe_lite", "minicpm3", "sarvam_mla", "youtu")
PROVIDED: dict[str, dict[str, Any]] = dict(sorted({
    **{kind: {} for kind in _PLAIN},
    **dict.fromkeys(_WITH_LATENT, _LATENT),
    "youtu": {**_LATENT, "initializer_range": 0.08},
    "minicpm3": {**_LATENT, "initializer_range": 0.05},
    **{kind: {**_LATENT, **_LINEAR_FIRST} for kind in ("bailing_hybrid", "kimi_linear")},
    **dict.fromkeys(("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"), _LINEAR_FIRST),
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "lara_mini": {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "head_dim": 16},
    "longcat_flash": {**_LATENT, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 20, "num_layers": 2,
                      "num_hidden_layers": 4, "zero_expert_num": 2},
    "ministral": {"head_dim": 8},
}.items()))  # fmt: skip
"""What is peculiar to the types that are served."""
_NOT_TOLD, _BEFORE = "is not told where documents end", "reads positions before a document's first, by a Conv1d"
ALONE = {
    **dict.fromkeys(("afmoe", "minimax"), _NOT_TOLD),
    **dict.fromkeys(("bailing_hybrid", "inkling_text", "kimi_linear", "lara_mini", "olmo_hybrid"), _BEFORE),
    **dict.fromkeys(("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"), _BEFORE),
}
"""Those of them whose samples are one document, and why."""
REFUSED: dict[str, dict[str, Any]] = {
    "deepseek_v4": {}, "gemma3n_text": {"num_kv_shared_layers": 0}, "gemma4_text": {},
    "gemma4_unified_text": {}, "glm_moe_dsa": _LATENT, "hrm_text": {},
    "hy_v4": _LATENT, "phi4_multimodal": {},
}  # fmt: skip
"""Types with the same plans whose modules cannot be units."""


def tiny_provided(kind: str) -> HfModel:
    """Sizes that transformers does not give the type by default are left to it."""
    from transformers import CONFIG_MAPPING

    known = CONFIG_MAPPING[kind]().to_dict()
    sizes = {name: value for name, value in _SIZES.items() if known.get(name) is not None or name == "pad_token_id"}
    return HfModel.of({"model_type": kind, **sizes, **{**PROVIDED, **REFUSED}[kind]})
