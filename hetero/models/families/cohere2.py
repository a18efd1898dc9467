"""Cohere 2: attention and MLP side by side behind one norm without bias; layers that read a window know positions."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families import llama
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import SLIDING, every, read_layer_types
from hetero.models.parts.norm import LayerNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

MLP: Table = {name: foreign for name, foreign in llama.MLP.items() if name != "norm.weight"}
NAMES = Names(llama.EMBEDDING, ({**llama.ATTENTION, **MLP},), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=256000, hidden=8192, ffn=22528, layers=40, heads=64)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    bias = config.flag("attention_bias", False)
    norm = LayerNorm(sizes.hidden, config.number("layer_norm_eps", 1e-5), bias=False)
    rotary, window = read_rotary(config, sizes.head_dim, interleaved=True), config.optional("sliding_window", 4096)
    types = read_layer_types(config, every(config.integer("sliding_window_pattern", 4), sizes.layers))
    layers = []
    for kind in types:
        near = kind == SLIDING and window is not None
        attention = sizes.attention(
            rotary if near else None, qkv_bias=bias, o_bias=bias, window=window if near else None
        )
        layers.append({"sliding_layer" if near else "layer": (norm, attention, sizes.mlp())})
    head = sizes.head(scale=config.number("logit_scale", 0.0625))
    tied = config.flag("tie_word_embeddings", True)
    config.finish()
    return decoder(sizes.embedding(), layers, (norm, head), tied, branches=(1, 2))


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
