"""Qwen2: Llama with biases on the query, key and value projections."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.families.llama import NAMES, llama
from hetero.models.hf_model import HfModel
from hetero.models.rope import read_theta
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151936, hidden=4096, ffn=22016, layers=32, heads=32, kv_heads=32)
    config.only("hidden_act", "silu")
    config.only("attention_dropout", 0.0)
    config.only("use_sliding_window", False)
    for key in ("sliding_window", "max_window_layers", "layer_types"):  # say nothing without it
        config.optional(key, None)
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", False)
    theta = read_theta(config, sizes.head_dim)
    config.finish()
    return llama(sizes, eps, theta, qkv_bias=True, tied=tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
