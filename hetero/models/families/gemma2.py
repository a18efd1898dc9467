"""Gemma 2: Gemma with norms behind attention and MLP, too, caps on scores and logits, and windows in every other
layer."""

from __future__ import annotations

from hetero.models.architecture import Architecture, Layer, decoder
from hetero.models.config import Config
from hetero.models.families import llama
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import FULL, SLIDING, every, read_layer_types
from hetero.models.parts.attention import Attention
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import Sizes, read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

ATTENTION: Table = {**llama.ATTENTION, "post_norm.weight": llama.LAYER + "post_attention_layernorm.weight"}
MLP: Table = {
    **llama.MLP,
    "norm.weight": llama.LAYER + "pre_feedforward_layernorm.weight",
    "post_norm.weight": llama.LAYER + "post_feedforward_layernorm.weight",
}
NAMES = Names(llama.EMBEDDING, (ATTENTION, MLP), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_gemma2_sizes(config, vocab=256000)
    bias = config.flag("attention_bias", False)
    others = {
        "qkv_bias": bias,
        "o_bias": bias,
        "scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
        "cap": config.optional("attn_logit_softcapping", 50.0),
    }
    rotary, window = read_rotary(config, sizes.head_dim), config.optional("sliding_window", 4096)
    attention = {FULL: sizes.attention(rotary, **others), SLIDING: sizes.attention(rotary, window=window, **others)}
    types = read_layer_types(config, every(2, sizes.layers))
    return finished(config, sizes, attention, types, cap=config.optional("final_logit_softcapping", 30.0))


def read_gemma2_sizes(config: Config, vocab: int) -> Sizes:
    """With what Gemma 2 and 3 do not know otherwise."""
    config.only("hidden_activation", "gelu_pytorch_tanh")
    config.only("use_bidirectional_attention", False)
    config.without_dropout("attention_dropout")
    return read_sizes(config, vocab=vocab, hidden=2304, ffn=9216, layers=26, heads=8, kv_heads=4, head_dim=256)


def finished(
    config: Config, sizes: Sizes, attention: dict[str, Attention], types: tuple[str, ...], cap: float | None
) -> Architecture:
    """Of layers that read by their types, with a norm before and one behind."""
    eps, tied = config.number("rms_norm_eps", 1e-6), config.flag("tie_word_embeddings", True)
    config.finish()
    norm, post = (RMSNorm(sizes.hidden, eps, offset=True, name=name) for name in ("norm", "post_norm"))
    mlp = (norm, sizes.mlp(activation="gelu_tanh"), post)
    kinds = {FULL: "attention", SLIDING: "sliding_attention"}
    layers: list[Layer] = [{kinds[kind]: (norm, attention[kind], post), "mlp": mlp} for kind in types]
    return decoder(sizes.embedding(scale=sizes.hidden**0.5), layers, (norm, sizes.head(cap=cap)), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
