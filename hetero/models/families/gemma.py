"""Gemma: Llama with 1 + weight in its norms, GELU for SiLU, and vectors of tokens times sqrt(hidden)."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families.llama import NAMES
from hetero.models.hf_model import HfModel
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=256000, hidden=3072, ffn=24576, layers=28, heads=16, kv_heads=16, head_dim=256)
    # The act of the first releases is meant to be the approximation, and transformers takes it for that.
    config.choice("hidden_act", "gelu_pytorch_tanh", ("gelu_pytorch_tanh", "gelu"))
    config.choice("hidden_activation", "gelu_pytorch_tanh", ("gelu_pytorch_tanh",))
    config.only("use_bidirectional_attention", False)
    config.without_dropout("attention_dropout")
    bias = config.flag("attention_bias", False)
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6), offset=True)
    attention = sizes.attention(read_rotary(config, sizes.head_dim), qkv_bias=bias, o_bias=bias)
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp(activation="gelu_tanh"))}
    tied = config.flag("tie_word_embeddings", True)
    config.finish()
    return decoder(sizes.embedding(scale=sizes.hidden**0.5), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
