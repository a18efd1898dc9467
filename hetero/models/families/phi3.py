"""Phi-3: Llama whose layers may all read a window; its directories join query, key and value, and gate and up."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families import llama
from hetero.models.hf_model import HfModel
from hetero.models.parts.norm import RMSNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Rule, Table

ATTENTION: Table = {
    "norm.weight": llama.LAYER + "input_layernorm.weight",
    ("q.weight", "k.weight", "v.weight"): Rule(llama.LAYER + "self_attn.qkv_proj.weight"),
    "o.weight": llama.LAYER + "self_attn.o_proj.weight",
}
MLP: Table = {
    "norm.weight": llama.LAYER + "post_attention_layernorm.weight",
    ("gate.weight", "up.weight"): Rule(llama.LAYER + "mlp.gate_up_proj.weight"),
    "down.weight": llama.LAYER + "mlp.down_proj.weight",
}
NAMES = Names(llama.EMBEDDING, (ATTENTION, MLP), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=32064, hidden=3072, ffn=8192, layers=32, heads=32)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout", "resid_pdrop", "embd_pdrop")
    norm = RMSNorm(sizes.hidden, config.number("rms_norm_eps", 1e-5))
    window = config.optional("sliding_window", None)
    attention = sizes.attention(read_rotary(config, sizes.head_dim), window=window)
    layer = {"attention": (norm, attention), "mlp": (norm, sizes.mlp())}
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
