"""Qwen3: Llama with norms of each query and key head; its last layers may read a window."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families.llama import NAMES
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import FULL, SLIDING, read_last_windows
from hetero.models.parts.attention import HeadNorm
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151936, hidden=4096, ffn=22016, layers=32, heads=32, kv_heads=32, head_dim=128)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6))
    window, types = read_last_windows(config, sizes.layers)
    rotary, mlp = read_rotary(config, sizes.head_dim), (norm, sizes.mlp())
    bias = config.flag("attention_bias", False)
    others = {"norm": HeadNorm(norm.eps), "qkv_bias": bias, "o_bias": bias}
    attention = {
        FULL: {"attention": (norm, sizes.attention(rotary, **others))},
        SLIDING: {"sliding_attention": (norm, sizes.attention(rotary, **others, window=window))},
    }
    layers = [{**attention[kind], "mlp": mlp} for kind in types]
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
