"""Granite: Llama with multipliers of vectors of tokens, of scores, of what each layer adds, and of logits."""

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
    sizes = read_sizes(config, vocab=32000, hidden=4096, ffn=11008, layers=32, heads=32)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    bias = config.flag("attention_bias", False)
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-6))
    attention = sizes.attention(
        read_rotary(config, sizes.head_dim),
        qkv_bias=bias,
        o_bias=bias,
        scale=config.number("attention_multiplier", 1.0),
    )
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp(bias=config.flag("mlp_bias", False)))}
    embedding = sizes.embedding(scale=config.number("embedding_multiplier", 1.0))
    head = sizes.head(scale=1.0 / config.number("logits_scaling", 1.0))
    scale, tied = config.number("residual_multiplier", 1.0), config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(embedding, [layer] * sizes.layers, (norm, head), tied, scale=scale)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
