"""A tiny model of each type that there is a family of, as its config.json has it, with what is peculiar to the type."""

from __future__ import annotations

from typing import Any

from hetero.models.hf_model import HfModel

_COMMON = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "tie_word_embeddings": True},
    "qwen2": {**_COMMON, "rms_norm_eps": 1e-3},
}


def tiny(kind: str, **changes: Any) -> HfModel:
    return HfModel.of({"model_type": kind, **TINY[kind], **changes})
