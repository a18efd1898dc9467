"""Decoders some of whose layers have experts in place of an MLP: what their families have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hetero.models.architecture import Architecture, Layer, decoder
from hetero.models.config import Config
from hetero.models.families.llama import ATTENTION, EMBEDDING, HEAD, MLP
from hetero.models.hf_model import config_error
from hetero.models.parts.attention import Attention
from hetero.models.parts.experts import Experts
from hetero.models.parts.norm import RMSNorm
from hetero.models.parts.part import Part
from hetero.models.sizes import Sizes
from hetero.models.weight_rules import Names, Table


def sparse_decoder(
    sizes: Sizes,
    eps: float,
    attention: Part | Sequence[Part],
    experts: Experts,
    sparse: Collection[int],
    tied: bool,
) -> Architecture:
    """Layers with the attention, or each with its own, and the experts or, where a layer's number is not among the
    `sparse`, an MLP."""
    norm, layers = RMSNorm(sizes.hidden, eps), []
    own = attention if isinstance(attention, Sequence) else [attention] * sizes.layers
    for layer, first in enumerate(own):
        windowed = isinstance(first, Attention) and first.window is not None
        second: Layer = {"experts": (norm, experts)} if layer in sparse else {"mlp": (norm, sizes.mlp())}
        layers.append({"sliding_attention" if windowed else "attention": (norm, first), **second})
    return decoder(sizes.embedding(), layers, (norm, sizes.head()), tied)


def sparse_names(experts: Table, attention: Table = ATTENTION) -> Names:
    """Of directories that name the rest as Llama does."""
    return Names(EMBEDDING, (attention, {**MLP, **experts}), HEAD)


def expert_names(
    block: str, projections: Mapping[str, str], shared: str = "", others: Mapping[str, str] | None = None
) -> Table:
    """Of a block of a layer's experts, each of which lies there by itself; `projections` are gate, up and down."""
    prefix = f"model.layers.{{layer}}.{block}."
    return {
        "router.weight": f"{prefix}gate.weight",
        **{f"experts.{ours}.weight": f"{prefix}experts.{{item}}.{name}.weight"
           for ours, name in projections.items()},
        **{f"shared.{ours}.weight": f"{prefix}{shared}.{name}.weight" for ours, name in projections.items() if shared},
        **{ours: f"{prefix}{name}" for ours, name in (others or {}).items()},
    }  # fmt: skip


PROJECTIONS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def read_stepped(config: Config, layers: int) -> tuple[int, ...]:
    """The layers with experts, as `decoder_sparse_step` and `mlp_only_layers` tell them."""
    step, dense = config.integer("decoder_sparse_step", 1), config.optional("mlp_only_layers", None) or ()
    return tuple(layer for layer in range(layers) if (layer + 1) % step == 0 and layer not in dense)


def read_auxiliary(config: Config, sparse: Collection[int], coefficient: float = 0.001) -> float:
    """Of each layer's loss, where transformers adds it to that of the tokens: if `output_router_logits` is set. It has
    the mean over layers and sequences of what each of them has alone, in place of one loss of all of their tokens."""
    asked = config.flag("output_router_logits", False)
    told = config.number("router_aux_loss_coef", coefficient)
    return told / max(1, len(sparse)) if asked else 0.0


def read_chosen(config: Config, experts: int, default: int) -> int:
    """How many experts a token goes to."""
    chosen = config.integer("num_experts_per_tok", default)
    if chosen > experts:
        raise config_error("num_experts_per_tok", chosen, f"a layer has {experts} experts", "correct one of them")
    return chosen
