"""A tiny model of each type that there is a family of, as its config.json has it, with what is peculiar to the type."""

from __future__ import annotations

from typing import Any

from hetero.models.hf_model import HfModel

_COMMON = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "deepseek_v2": {**_COMMON, "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_key_value_heads": 4,
                    "q_lora_rank": None, "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
                    "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
                    "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
                    "routed_scaling_factor": 1.5},
    "deepseek_v3": {**_COMMON, "first_k_dense_replace": 1, "num_key_value_heads": 4, "q_lora_rank": 28,
                    "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20,
                    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_group": 4,
                    "topk_group": 2},
    "llama": {**_COMMON, "tie_word_embeddings": True},
    "mixtral": {**_COMMON, "num_local_experts": 4},
    "qwen2": {**_COMMON, "rms_norm_eps": 1e-3},
    "qwen2_moe": {**_COMMON, "num_hidden_layers": 4, "decoder_sparse_step": 2, "num_experts": 6,
                  "num_experts_per_tok": 3, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28},
}  # fmt: skip


def tiny(kind: str, **changes: Any) -> HfModel:
    return HfModel.of({"model_type": kind, **TINY[kind], **changes})
