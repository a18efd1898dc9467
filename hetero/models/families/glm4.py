"""GLM-4: Llama with norms behind attention and MLP, too, where half of a head turns, in neighbouring pairs."""

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

ATTENTION: Table = {**llama.ATTENTION, "post_norm.weight": llama.LAYER + "post_self_attn_layernorm.weight"}
MLP: Table = {
    "norm.weight": llama.LAYER + "post_attention_layernorm.weight",
    "post_norm.weight": llama.LAYER + "post_mlp_layernorm.weight",
    ("gate.weight", "up.weight"): Rule(llama.LAYER + "mlp.gate_up_proj.weight"),
    "down.weight": llama.LAYER + "mlp.down_proj.weight",
}
NAMES = Names(llama.EMBEDDING, (ATTENTION, MLP), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=151552, hidden=4096, ffn=13696, layers=40, heads=32, kv_heads=2, head_dim=128)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    eps = config.number("rms_norm_eps", 0.00000015625)
    norm, post = (RMSNorm(sizes.hidden, eps, name=name) for name in ("norm", "post_norm"))
    rotary = read_rotary(config, sizes.head_dim, partial=0.5, interleaved=True)
    attention = sizes.attention(rotary, qkv_bias=config.flag("attention_bias", True))
    layer = {"attention": (norm, attention, post), "mlp": (norm, sizes.mlp(), post)}
    tied = config.flag("tie_word_embeddings", False)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
