"""A model of ours as transformers describes it."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig

from hetero.models.dimensions import Dimensions


def llama_config(dims: Dimensions, **others: Any) -> LlamaConfig:
    """`others` are what transformers knows beside the sizes."""
    return LlamaConfig(
        vocab_size=dims.vocab,
        hidden_size=dims.hidden,
        intermediate_size=dims.ffn,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        num_key_value_heads=dims.kv_heads,
        rms_norm_eps=dims.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": dims.rope_theta},
        **others,
    )
