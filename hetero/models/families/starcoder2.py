"""StarCoder2: layer norms, biases everywhere, an MLP of GELU without a gate, windows in all layers if in any."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.families import llama
from hetero.models.hf_model import HfModel
from hetero.models.parts.norm import LayerNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Table

ATTENTION: Table = {**llama.ATTENTION, "norm.bias": llama.LAYER + "input_layernorm.bias"}
MLP: Table = {
    **{f"norm.{kind}": f"{llama.LAYER}post_attention_layernorm.{kind}" for kind in ("weight", "bias")},
    **{f"up.{kind}": f"{llama.LAYER}mlp.c_fc.{kind}" for kind in ("weight", "bias")},
    **{f"down.{kind}": f"{llama.LAYER}mlp.c_proj.{kind}" for kind in ("weight", "bias")},
}
NAMES = Names(llama.EMBEDDING, (ATTENTION, MLP), llama.HEAD)


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=49152, hidden=3072, ffn=12288, layers=30, heads=24, kv_heads=2, std=0.018042)
    config.only("hidden_act", "gelu_pytorch_tanh")
    config.without_dropout("attention_dropout", "residual_dropout", "embedding_dropout")
    bias, norm = config.flag("use_bias", True), LayerNorm(sizes.hidden, config.number("norm_epsilon", 1e-5))
    attention = sizes.attention(
        read_rotary(config, sizes.head_dim),
        qkv_bias=bias,
        o_bias=bias,
        window=config.optional("sliding_window", None),
    )
    mlp = sizes.mlp(activation="gelu_tanh", gated=False, bias=bias)
    layer = {"attention": (norm, attention), "mlp": (norm, mlp)}
    tied = config.flag("tie_word_embeddings", True)
    config.finish()
    return decoder(sizes.embedding(), [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
