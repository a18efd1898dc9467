"""GPT-2: learned positions, layer norms, biases everywhere, an MLP of GELU without a gate."""

from __future__ import annotations

from hetero.models.architecture import Architecture, decoder
from hetero.models.config import Config
from hetero.models.hf_model import HfModel, config_error
from hetero.models.parts.norm import LayerNorm
from hetero.models.sizes import Sizes
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Rule, Table

LAYER = "transformer.h.{layer}."
KINDS = ("weight", "bias")


def _layer(norm: str, *products: tuple[str | tuple[str, ...], str]) -> Table:
    """Directories have (inputs, outputs) of products."""
    table: dict[str | tuple[str, ...], str | Rule] = {f"norm.{kind}": f"{LAYER}{norm}.{kind}" for kind in KINDS}
    for names, foreign in products:
        for kind in KINDS:
            key = f"{names}.{kind}" if isinstance(names, str) else tuple(f"{name}.{kind}" for name in names)
            table[key] = Rule(f"{LAYER}{foreign}.{kind}", transposed=True)
    return table


NAMES = Names(
    {"embedding.weight": "transformer.wte.weight", "positions.weight": "transformer.wpe.weight"},
    (
        _layer("ln_1", (("q", "k", "v"), "attn.c_attn"), ("o", "attn.c_proj")),
        _layer("ln_2", ("up", "mlp.c_fc"), ("down", "mlp.c_proj")),
    ),
    {**{f"norm.{kind}": f"transformer.ln_f.{kind}" for kind in KINDS}, "head.weight": "lm_head.weight"},
    prefix="transformer.",
)
_OF_CLASSIFIERS = (
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    "n_ctx", "reorder_and_upcast_attn",
)  # fmt: skip


def describe(model: HfModel) -> Architecture:
    """Its dropout, with which it was once trained, is not supported; transformers writes it in every config.json, and
    plans tell of it."""
    config = Config(model)
    hidden, heads = config.integer("n_embd", 768), config.integer("n_head", 12)
    if hidden % heads:
        raise config_error("n_head", heads, f"must divide n_embd ({hidden})", "correct one of them")
    sizes = Sizes(
        config.integer("n_layer", 12), hidden, heads, heads, hidden // heads, config.integer("n_inner", 4 * hidden),
        config.integer("vocab_size", 50257), config.number("initializer_range", 0.02),
    )  # fmt: skip
    config.choice("activation_function", "gelu_new", ("gelu_new", "gelu_pytorch_tanh"))
    config.only("scale_attn_weights", True)
    config.only("scale_attn_by_inverse_layer_idx", False)
    for key in (*_OF_CLASSIFIERS, "attn_pdrop", "embd_pdrop", "resid_pdrop"):
        config.optional(key, None)
    norm = LayerNorm(hidden, config.number("layer_norm_epsilon", 1e-5))
    mlp = sizes.mlp(activation="gelu_tanh", gated=False, bias=True)
    layer = {"attention": (norm, sizes.attention(None, qkv_bias=True, o_bias=True)), "mlp": (norm, mlp)}
    embedding = sizes.embedding(positions=config.integer("n_positions", 1024))
    tied = config.flag("tie_word_embeddings", True)
    config.finish()
    return decoder(embedding, [layer] * sizes.layers, (norm, sizes.head()), tied)


def weights(model: HfModel) -> WeightMap:
    return NAMES.map(describe(model))
