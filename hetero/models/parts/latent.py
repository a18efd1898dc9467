"""Causal self-attention whose keys and values, and perhaps queries, are made of small latent vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.frequencies import Rotary
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.attention import masks
from hetero.models.parts.part import Part, PartWork

LATENT_EPS = 1e-6
"""Of the latents' norms, whatever that of the others is."""


@dataclass(frozen=True)
class LatentAttention(Part):
    """A position is pressed into a latent of `kv_latent` and one key that all heads share and positions turn, as wide
    as `rotary` has it; of the latent's norm each head makes a key of `plain` and a value of `value`. Queries are made
    of the stream, or of a latent of `query_latent`, if that is not 0. `scale` is what scores are multiplied by.

    Heads are cut over the ranks. Every rank presses all positions, which is little, and makes a share of the gradients
    of what does it: that of its heads. `into_stream` is how the output projection begins, `initial` the others.
    """

    module: ClassVar[str] = "hetero.models.parts.latent_module:LatentAttentionModule"

    hidden: int
    heads: int
    query_latent: int
    kv_latent: int
    plain: int
    rotary: Rotary
    value: int
    scale: float
    initial: Normal
    into_stream: Normal

    @property
    def key(self) -> int:
        """Width of a head's query and key."""
        return self.plain + self.rotary.dim

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return (
            *self._queries(tp),
            self._whole("kv_down.weight", tp, self.kv_latent + self.rotary.dim, self.hidden),
            self._norm("kv_norm.weight", tp, self.kv_latent),
            self._heads("kv_up.weight", tp, self.plain + self.value, self.kv_latent),
            TensorSpec(
                "o.weight",
                TensorLayout.split_heads((self.hidden, self.heads * self.value), 1, self.heads, tp, self.value),
                self.into_stream,
            ),
        )

    def _queries(self, tp: int) -> Iterator[TensorSpec]:
        if not self.query_latent:
            yield self._heads("q.weight", tp, self.key, self.hidden)
            return
        yield self._whole("q_down.weight", tp, self.query_latent, self.hidden)
        yield self._norm("q_norm.weight", tp, self.query_latent)
        yield self._heads("q_up.weight", tp, self.key, self.query_latent)

    def _heads(self, name: str, tp: int, width: int, inputs: int) -> TensorSpec:
        shape = (self.heads * width, inputs)
        return TensorSpec(name, TensorLayout.split_heads(shape, 0, self.heads, tp, width), self.initial)

    def _whole(self, name: str, tp: int, outputs: int, inputs: int) -> TensorSpec:
        return TensorSpec(name, TensorLayout.replicated((outputs, inputs), tp, "summed"), self.initial)

    def _norm(self, name: str, tp: int, width: int) -> TensorSpec:
        return TensorSpec(name, TensorLayout.replicated((width,), tp, "summed"), Constant(1.0))

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are q, k, v and what they give, all as wide as keys, since kernels want that; the last at a value's
        width, side by side for the product; and one float32 log-sum for each head and position. Of latents, on
        every rank, what their norms keep and what these give, which can be made again from the latents and what lies
        beside them. Backward has the gradients of the same four. The causal mask leaves half of the square, which has
        no weights."""
        tokens, heads = seq_len * size, seq_len * size * self.heads
        four, latents = 4 * heads * self.key, self.query_latent + self.kv_latent
        turned = tokens * self.rotary.dim if size == 4 else 0  # lies beside the latent
        norms = (1 + (self.query_latent > 0)) * seq_len * 4
        whole = seq_len * latents * (4 + 2 * size) + norms + turned
        return PartWork(
            forward_flops=self.product_flops(seq_len) + 1.0 * seq_len * seq_len * self.heads * (self.key + self.value),
            collectives=1,
            kept=TpBytes(four + heads * self.value + seq_len * 4 * self.heads, whole),
            input_bytes=tokens * self.hidden,
            backward=TpBytes(four),
            elementwise=TpBytes(whole=whole - tokens * (latents + self.rotary.dim)),
            last_flops=2.0 * seq_len * self.hidden * self.heads * self.value,
            weight_flops=self.product_flops(seq_len),
            pairs=TpBytes(
                heads * (self.key + self.plain + 2 * self.value),
                whole=tokens * (2 * self.hidden + 2 * latents + self.rotary.dim),
            ),
            masks=masks(seq_len, size, self.rotary),
        )

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} does not divide the {self.heads} heads" if self.heads % tp else None
