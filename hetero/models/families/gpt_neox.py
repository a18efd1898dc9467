"""GPT-NeoX: layer norms, biases everywhere, a quarter of each head turns; attention and MLP side by side, each behind a
norm of its own, or one after the other."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from hetero.models.parts.norm import LayerNorm
from hetero.models.rope import read_rotary
from hetero.models.sizes import read_sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Rule, Table

LAYER = "gpt_neox.layers.{layer}."
KINDS = ("weight", "bias")


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = read_sizes(config, vocab=50432, hidden=6144, ffn=24576, layers=44, heads=64)
    config.only("num_key_value_heads", None)
    config.only("hidden_act", "gelu")
    config.without_dropout("attention_dropout", "hidden_dropout")
    config.optional("classifier_dropout", None)
    bias, eps = config.flag("attention_bias", True), config.number("layer_norm_eps", 1e-5)
    theta, partial = config.number("rotary_emb_base", 10000.0), config.number("rotary_pct", 0.25)
    rotary = read_rotary(config, sizes.head_dim, theta, partial)
    attention = sizes.attention(rotary, qkv_bias=bias, o_bias=bias)
    mlp = sizes.mlp(activation="gelu", gated=False, bias=True)
    beside, tied = config.flag("use_parallel_residual", True), config.flag("tie_word_embeddings", False)
    config.finish()
    first, second = (LayerNorm(sizes.hidden, eps, name=name) for name in ("attention_norm", "mlp_norm"))
    last = LayerNorm(sizes.hidden, eps), sizes.head()
    if beside:
        layer = {"layer": (first, attention, second, mlp)}
        return decoder(sizes.embedding(), [layer] * sizes.layers, last, tied, branches=(0, 2))
    return decoder(
        sizes.embedding(), [{"attention": (first, attention), "mlp": (second, mlp)}] * sizes.layers, last, tied
    )


def weights(model: HfModel) -> WeightMap:
    """Query, key and value of each head lie side by side."""
    found, heads = describe(model), int(model.values.get("num_attention_heads", 64))
    attention: Table = {
        **{f"attention_norm.{kind}": f"{LAYER}input_layernorm.{kind}" for kind in KINDS},
        **{tuple(f"{name}.{kind}" for name in "qkv"): Rule(f"{LAYER}attention.query_key_value.{kind}", groups=heads)
           for kind in KINDS},
        **{f"o.{kind}": f"{LAYER}attention.dense.{kind}" for kind in KINDS},
    }  # fmt: skip
    mlp: Table = {
        **{f"mlp_norm.{kind}": f"{LAYER}post_attention_layernorm.{kind}" for kind in KINDS},
        **{f"up.{kind}": f"{LAYER}mlp.dense_h_to_4h.{kind}" for kind in KINDS},
        **{f"down.{kind}": f"{LAYER}mlp.dense_4h_to_h.{kind}" for kind in KINDS},
    }
    beside = found.units[1].branches
    names = Names(
        {"embedding.weight": "gpt_neox.embed_in.weight"},
        ({**attention, **mlp},) if beside else (attention, mlp),
        {**{f"norm.{kind}": f"gpt_neox.final_layer_norm.{kind}" for kind in KINDS}, "head.weight": "embed_out.weight"},
        prefix="gpt_neox.",
    )
    return names.map(found)
