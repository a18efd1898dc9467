"""The sizes that most families of decoders have under the same keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hetero.layers.frequencies import Rotary
from hetero.layers.spec import Normal
from hetero.models.config import Config
from hetero.models.hf_model import config_error
from hetero.models.parts.attention import Attention
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.head import Head
from hetero.models.parts.mlp import MLP


@dataclass(frozen=True)
class Sizes:
    """`std` is of first values. `kv_heads` divides `heads`."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    std: float

    def attention(self, rotary: Rotary | None, **others: Any) -> Attention:
        """`others` are fields of `Attention`."""
        heads = self.hidden, self.heads, self.kv_heads, self.head_dim
        return Attention(*heads, rotary, self.initial, self.into_stream, **others)

    def mlp(self, **others: Any) -> MLP:
        """`others` are fields of `MLP`."""
        return MLP(self.hidden, self.ffn, self.initial, self.into_stream, **others)

    def embedding(self, **others: Any) -> Embedding:
        """`others` are fields of `Embedding`."""
        return Embedding(self.vocab, self.hidden, self.initial, **others)

    def head(self, **others: Any) -> Head:
        """`others` are fields of `Head`."""
        return Head(self.vocab, self.hidden, self.initial, **others)

    @property
    def initial(self) -> Normal:
        return Normal(self.std)

    @property
    def into_stream(self) -> Normal:
        """Projections that add to the residual stream start smaller, so that it does not grow with depth (GPT-2)."""
        return Normal(self.std / math.sqrt(2 * self.layers))


def read_sizes(
    config: Config,
    *,
    vocab: int,
    hidden: int,
    ffn: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    std: float = 0.02,
) -> Sizes:
    """Given are transformers' own defaults for the family; None is as many as heads, and hidden over heads."""
    hidden, heads = config.integer("hidden_size", hidden), config.integer("num_attention_heads", heads)
    if config.optional("head_dim", head_dim) is None and hidden % heads:
        raise config_error("num_attention_heads", heads, f"must divide hidden_size ({hidden})", "correct one of them")
    shared = config.optional("num_key_value_heads", kv_heads)
    kv_heads = config.integer("num_key_value_heads", heads if shared is None else shared)
    if heads % kv_heads:
        raise config_error("num_key_value_heads", kv_heads, f"must divide the {heads} heads", "correct one of them")
    width = config.optional("head_dim", head_dim)
    return Sizes(
        layers=config.integer("num_hidden_layers", layers),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.integer("head_dim", hidden // heads if width is None else width),
        ffn=config.integer("intermediate_size", ffn),
        vocab=config.integer("vocab_size", vocab),
        std=config.number("initializer_range", std),
    )
