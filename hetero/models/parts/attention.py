"""Causal self-attention with grouped queries and rotary positions, its heads cut over the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class Attention(Part):
    """`heads / kv_heads` query heads read one key-value head; with fewer of these than ranks, each rank has the one
    that its query heads read. `into_stream` is how the output projection begins, `initial` the other three."""

    module: ClassVar[str] = "hetero.models.parts.attention_module:AttentionModule"

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    qkv_bias: bool
    initial: Normal
    into_stream: Normal

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        width = self.heads * self.head_dim
        out = TensorLayout.split_heads((self.hidden, width), 1, self.heads, tp, self.head_dim)
        return (*self._projections(tp), TensorSpec("o.weight", out, self.into_stream))

    def _projections(self, tp: int) -> Iterator[TensorSpec]:
        for name, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
            width = heads * self.head_dim
            weight = TensorLayout.split_heads((width, self.hidden), 0, heads, tp, self.head_dim)
            yield TensorSpec(f"{name}.weight", weight, self.initial)
            if self.qkv_bias:
                bias = TensorLayout.split_heads((width,), 0, heads, tp, self.head_dim)
                yield TensorSpec(f"{name}.bias", bias, Constant(0.0))

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are q, k, v, what they give, and one float32 log-sum for each head and position; backward has the
        gradients of the same four. The causal mask leaves half of the square, which has no weights. Pairs are of
        the four projections, of which the first three read the same. Of documents there are a mask and angles."""
        query, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        four = seq_len * size * (2 * query + 2 * shared)
        return PartWork(
            forward_flops=self.product_flops(seq_len) + 2.0 * seq_len * seq_len * query,
            collectives=1,
            kept_bytes=four + seq_len * 4 * self.heads,
            input_bytes=seq_len * size * self.hidden,
            backward_bytes=four,
            last_flops=2.0 * seq_len * self.hidden * query,
            weight_flops=self.product_flops(seq_len),
            pair_bytes=four,
            whole_pair_bytes=seq_len * size * 2 * self.hidden,
            mask_bytes=seq_len * size * (seq_len + 2 * self.head_dim),
        )

    def legal_tp(self, tp: int) -> str | None:
        if self.heads % tp:
            return f"tp {tp} does not divide the {self.heads} heads"
        if self.kv_heads % tp and tp % self.kv_heads:
            return f"of tp {tp} and the {self.kv_heads} kv_heads, neither divides the other"
        return None
