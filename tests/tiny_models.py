"""A tiny model of each type that there is a family of, as its config.json has it, with what is peculiar to the type."""

from __future__ import annotations

from typing import Any

from hetero.models.hf_model import HfModel

_COMMON = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
_TOKENS = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 16}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 4.0]}
_MIXED = ["sliding_attention", "full_attention"]
TINY: dict[str, dict[str, Any]] = {
    "cohere2": {**_COMMON, **_TOKENS, "sliding_window": 7, "layer_types": _MIXED},
    "deepseek_v2": {**_COMMON, "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_key_value_heads": 4,
                    "q_lora_rank": None, "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
                    "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
                    "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
                    "routed_scaling_factor": 1.5},
    "deepseek_v3": {**_COMMON, "first_k_dense_replace": 1, "num_key_value_heads": 4, "q_lora_rank": 28,
                    "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20,
                    "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 0.8},
                    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_group": 4,
                    "topk_group": 2},
    "gemma": {**_COMMON, **_TOKENS, "head_dim": 16},
    "gemma2": {**_COMMON, **_TOKENS, "head_dim": 16, "sliding_window": 7, "attn_logit_softcapping": 3.0,
               "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 20},
    "gemma3_text": {**_COMMON, **_TOKENS, "head_dim": 16, "sliding_window": 7, "layer_types": _MIXED,
                    "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
                                        "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}}},
    "glm4": {**_COMMON, **_TOKENS, "head_dim": 8},
    "glm4_moe": {**_COMMON, **_TOKENS, "head_dim": 16, "use_qk_norm": True, "attention_bias": True,
                 "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 3,
                 "moe_intermediate_size": 20},
    "gpt2": {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "gpt_neox": {**_COMMON, "num_key_value_heads": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                                "partial_rotary_factor": 0.5}},
    "gpt_oss": {**_COMMON, "head_dim": 16, "sliding_window": 7, "num_local_experts": 6, "num_experts_per_tok": 3,
                "swiglu_limit": 0.5},
    "granite": {**_COMMON, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5,
                "attention_multiplier": 0.2},
    "llama": {**_COMMON, "tie_word_embeddings": True, "rope_parameters": _LLAMA3},
    "mistral": {**_COMMON, "sliding_window": 7},
    "mixtral": {**_COMMON, "num_local_experts": 4},
    "olmo2": {**_COMMON, **_TOKENS},
    "phi3": {**_COMMON, **_TOKENS, "max_position_embeddings": 64, "original_max_position_embeddings": 16,
             "rope_parameters": {**_LONGROPE, "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    "qwen2": {**_COMMON, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen2_moe": {**_COMMON, "num_hidden_layers": 4, "decoder_sparse_step": 2, "num_experts": 6,
                  "num_experts_per_tok": 3, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28},
    "qwen3": {**_COMMON, "head_dim": 16, "rope_parameters": _YARN},
    "qwen3_moe": {**_COMMON, "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 3, "norm_topk_prob": True,
                  "moe_intermediate_size": 20, "mlp_only_layers": [0], "use_sliding_window": True,
                  "sliding_window": 7},
    "smollm3": {**_COMMON, **_TOKENS, "no_rope_layers": [1, 0]},
    "starcoder2": {**_COMMON, **_TOKENS, "sliding_window": 7},
}  # fmt: skip


def tiny(kind: str, **changes: Any) -> HfModel:
    return HfModel.of({"model_type": kind, **TINY[kind], **changes})
