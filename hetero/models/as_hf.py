"""A model of our own sizes as others know it: the same tensors and the same numbers. Torch-free."""

from __future__ import annotations

from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel


def as_hf(model: ModelDescription) -> HfModel:
    """Its config.json. With biases on queries, keys and values a Llama is what others call Qwen2."""
    if not isinstance(model, Dimensions):
        return model
    kind, architecture = ("qwen2", "Qwen2ForCausalLM") if model.qkv_bias else ("llama", "LlamaForCausalLM")
    return HfModel.of({
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": model.vocab,
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    })  # fmt: skip
