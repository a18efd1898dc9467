"""gpt-oss: experts with biases and a clamped gate, chosen before their softmax; attention with sinks, every other layer
of which reads a window."""

from __future__ import annotations

from hetero.models.architecture import Architecture
from hetero.models.config import Config
from hetero.models.families.llama import ATTENTION, LAYER
from hetero.models.hf_model import HfModel
from hetero.models.layer_types import SLIDING, every, read_layer_types
from hetero.models.parts.experts import ClampedGate, Experts
from hetero.models.parts.routing import Routing
from hetero.models.rope import rotary_of
from hetero.models.sizes import Sizes, read_sizes
from hetero.models.sparse import read_auxiliary, read_chosen, sparse_decoder, sparse_names
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Rule, Table

_YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


def describe(model: HfModel) -> Architecture:
    config = Config(model)
    sizes = _sizes(config)
    config.only("hidden_act", "silu")
    config.without_dropout("attention_dropout")
    for key in ("experts_per_token", "initial_context_length"):  # the same as others, by older names
        config.optional(key, None)
    count, sparse = config.integer("num_local_experts", 128), range(sizes.layers)
    routing = Routing(
        count,
        read_chosen(config, count, 4),
        "chosen_softmax",
        bias=True,
        auxiliary=read_auxiliary(config, sparse),
    )
    clamped = ClampedGate(config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0))
    told = config.optional("rope_scaling", None) or config.optional("rope_parameters", None) or _YARN
    rotary = rotary_of(config, told, sizes.head_dim, config.number("rope_theta", 150000.0))
    config.optional("rope_parameters", None)
    bias, window = config.flag("attention_bias", True), config.optional("sliding_window", 128)
    types = read_layer_types(config, every(2, sizes.layers))
    eps, tied = config.number("rms_norm_eps", 1e-5), config.flag("tie_word_embeddings", False)
    config.finish()
    common = {"qkv_bias": bias, "o_bias": bias, "sinks": True}
    attention = [sizes.attention(rotary, window=window if kind == SLIDING else None, **common) for kind in types]
    experts = Experts(sizes.hidden, sizes.ffn, routing, sizes.initial, sizes.into_stream, bias=True, clamped=clamped)
    return sparse_decoder(sizes, eps, attention, experts, sparse, tied)


def _sizes(config: Config) -> Sizes:
    return read_sizes(config, vocab=201088, hidden=2880, ffn=2880, layers=36, heads=64, kv_heads=8, head_dim=64)


def weights(model: HfModel) -> WeightMap:
    return _names(_sizes(Config(model)).ffn).map(describe(model))


def _names(ffn: int) -> Names:
    """Experts lie there in one tensor, inputs first; gate and up take turns."""
    block = LAYER + "mlp."
    both = {kind: tuple(f"experts.{name}.{kind}" for name in ("gate", "up")) for kind in ("weight", "bias")}
    experts: Table = {
        "router.weight": block + "router.weight",
        "router.bias": block + "router.bias",
        both["weight"]: Rule(block + "experts.gate_up_proj", axis=1, groups=ffn, transposed=True),
        both["bias"]: Rule(block + "experts.gate_up_proj_bias", axis=1, groups=ffn),
        "experts.down.weight": Rule(block + "experts.down_proj", transposed=True),
        "experts.down.bias": block + "experts.down_proj_bias",
    }
    return sparse_names(experts, {**ATTENTION, "sinks.weight": LAYER + "self_attn.sinks"})
