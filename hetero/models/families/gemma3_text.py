"""Gemma 3 (text): Gemma 2 without its caps, with norms of query and key heads, and positions of their own in layers
that read a window."""

from __future__ import annotations

from typing import Any

from hetero.layers.frequencies import Rotary
from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.families.gemma2 import NAMES, finished, read_gemma2_sizes
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import FULL, SLIDING, every, read_layer_types
from hetero.models.parts.attention import HeadNorm
from hetero.models.rope import rotary_of
from hetero.models.weight_map import WeightMap


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_gemma2_sizes(config, vocab=262208)
    bias = config.flag("attention_bias", False)
    others = {
        "norm": HeadNorm(config.number("rms_norm_eps", 1e-6), offset=True),
        "qkv_bias": bias,
        "o_bias": bias,
        "scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
    }
    config.only("attn_logit_softcapping", None)
    rotary, window = _rotary(config, sizes.head_dim), config.optional("sliding_window", 4096)
    attention = {
        FULL: sizes.attention(rotary[FULL], **others),
        SLIDING: sizes.attention(rotary[SLIDING], window=window, **others),
    }
    types = read_layer_types(config, every(config.integer("sliding_window_pattern", 6), sizes.layers))
    return finished(config, sizes, attention, types, cap=config.optional("final_logit_softcapping", None))


def _rotary(config: Config, head_dim: int) -> dict[str, Rotary]:
    """By type of layer, or scaled in full layers alone, as it was told of old."""
    told: dict[str, Any] = dict(config.optional("rope_parameters", {}) or {})
    scaled = {**(told.get(FULL) or {}), **(config.optional("rope_scaling", {}) or {})}
    theta, local = config.number("rope_theta", 1e6), config.number("rope_local_base_freq", 1e4)
    return {
        FULL: rotary_of(config, scaled, head_dim, theta),
        SLIDING: rotary_of(config, told.get(SLIDING) or {}, head_dim, local),
    }


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
