"""Mistral: Llama whose layers all read a window."""

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
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=14336, layers=32, heads=32, kv_heads=8)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6))
    window = config.optional("sliding_window", 4096)
    attention = sizes.attention(read_rotary(config, sizes.head_dim), window=window)
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp())}
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
