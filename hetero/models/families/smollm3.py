"""SmolLM3: Llama some of whose layers know no positions; these may read a window."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families.llama import NAMES
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import FULL, SLIDING, read_layer_types
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=128256, hidden=2048, ffn=11008, layers=36, heads=16, kv_heads=4)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    bias = config.flag("attention_bias", False)
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6))
    interval = config.integer("no_rope_layer_interval", 4)
    turning = config.optional("no_rope_layers", None) or [(layer + 1) % interval for layer in range(sizes.layers)]
    window = config.optional("sliding_window", None) if config.flag("use_sliding_window", False) else None
    config.optional("sliding_window", None)
    types = [FULL if window is None or turns else SLIDING for turns in turning]
    rotary, mlp = read_rotary(config, sizes.head_dim, theta=2e6), (norm, sizes.mlp(bias=config.flag("mlp_bias", False)))
    layers = []
    for turns, kind in zip(turning, read_layer_types(config, types), strict=True):
        name = ("sliding_" if kind == SLIDING else "") + ("attention" if turns else "attention_without_positions")
        attention = sizes.attention(
            rotary if turns else None, qkv_bias=bias, o_bias=bias, window=window if kind == SLIDING else None
        )
        layers.append({name: (norm, attention), "mlp": mlp})
    tied = config.flag("tie_word_embeddings", True)
    config.finish()
    return decoder(sizes.embedding(), layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
