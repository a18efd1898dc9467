"""Causal self-attention with grouped queries, its heads cut over the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.frequencies import Rotary
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class HeadNorm:
    """An RMS norm of queries and of keys, before they are turned: of each head by itself or, where it is `whole`, of
    all heads together. With an `offset`, 1 + weight is in the weight's place."""

    eps: float
    whole: bool = False
    offset: bool = False


@dataclass(frozen=True)
class Attention(Part):
    """`heads / kv_heads` query heads read one key-value head; with fewer of these than ranks, each rank has the one
    that its query heads read. `into_stream` is how the output projection begins, `initial` the other three.

    rotary  positions, if it knows any
    window  how many positions each one reads, itself among them; None is all before it
    scale   of scores, 1 / sqrt(head_dim) by default
    cap     which scores do not exceed: cap * tanh(score / cap)
    sinks   each head has one more score, whose value is nothing
    """

    module: ClassVar[str] = "hetero.models.parts.attention_module:AttentionModule"

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary: Rotary | None
    initial: Normal
    into_stream: Normal
    qkv_bias: bool = False
    o_bias: bool = False
    norm: HeadNorm | None = None
    window: int | None = None
    scale: float | None = None
    cap: float | None = None
    sinks: bool = False

    @property
    def query_scale(self) -> float:
        """By what queries are multiplied, so that operators' own 1 / sqrt(head_dim) makes the scale of it."""
        return 1.0 if self.scale is None else self.scale * self.head_dim**0.5

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        width = self.heads * self.head_dim
        out = TensorLayout.split_heads((self.hidden, width), 1, self.heads, tp, self.head_dim)
        found = [*self._projections(tp), TensorSpec("o.weight", out, self.into_stream)]
        if self.o_bias:
            found.append(TensorSpec("o.bias", TensorLayout.replicated((self.hidden,), tp), Constant(0.0), by_rows=True))
        if self.sinks:
            sinks = TensorLayout.split_heads((self.heads,), 0, self.heads, tp, 1)
            found.append(TensorSpec("sinks.weight", sinks, self.initial))
        return (*found, *self._norms(tp))

    def _projections(self, tp: int) -> Iterator[TensorSpec]:
        for name, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
            width = heads * self.head_dim
            weight = TensorLayout.split_heads((width, self.hidden), 0, heads, tp, self.head_dim)
            yield TensorSpec(f"{name}.weight", weight, self.initial)
            if self.qkv_bias:
                bias = TensorLayout.split_heads((width,), 0, heads, tp, self.head_dim)
                yield TensorSpec(f"{name}.bias", bias, Constant(0.0))

    def _norms(self, tp: int) -> Iterator[TensorSpec]:
        """Each rank makes a share of the gradient of what all heads share."""
        if self.norm is None:
            return
        first = Constant(0.0 if self.norm.offset else 1.0)
        for name, heads in (("q_norm", self.heads), ("k_norm", self.kv_heads)):
            if self.norm.whole:
                layout = TensorLayout.split_heads((heads * self.head_dim,), 0, heads, tp, self.head_dim)
            else:
                layout = TensorLayout.replicated((self.head_dim,), tp, "summed")
            yield TensorSpec(f"{name}.weight", layout, first)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are q, k, v, what they give, and one float32 log-sum for each head and position; backward has the
        gradients of the same four. The causal mask leaves half of the square, which has no weights; a window's
        counts as if it were none. Pairs are of the four projections, of which the first three read the same. Of
        documents there are a mask and angles; of a window, or beside a cap or sinks, there is always a mask.

        Norms of heads keep what they are given in float32, what they make of it, and scales; those of each head by
        itself can be made again. With a cap or sinks the squares of the heads of one group are there at a time, in
        float32; backward makes them again."""
        query, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        four = seq_len * size * (2 * query + 2 * shared)
        square = 2.0 * seq_len * seq_len * query
        normed = seq_len * self._normed_bytes(size)
        given = seq_len * size * (query + shared) if normed else 0
        squared = self.cap is not None or self.sinks
        squares = 4 * seq_len * seq_len * (self.heads // self.kv_heads) if squared else 0
        return PartWork(
            forward_flops=self.product_flops(seq_len) + square,
            collectives=1,
            kept=TpBytes(four + (0 if squared else seq_len * 4 * self.heads) + normed),
            input_bytes=seq_len * size * self.hidden,
            forward_bytes=4 * squares,
            backward=TpBytes(max(four + 6 * squares, self._norm_backward_bytes(seq_len, size))),
            elementwise=TpBytes(0 if self.norm is None or self.norm.whole else normed - given),
            remade_flops=square / 2 if squared else 0.0,
            last_flops=2.0 * seq_len * self.hidden * query,
            weight_flops=self.product_flops(seq_len),
            pairs=TpBytes(four, whole=seq_len * size * 2 * self.hidden),
            masks=masks(seq_len, size, self.rotary, self.window),
            plain_masks=plain_masks(seq_len, size, self.window, squared),
        )

    def _normed_bytes(self, size: int) -> int:
        """Of a position."""
        if self.norm is None:
            return 0
        heads = self.heads + self.kv_heads
        return heads * (self.head_dim * (4 + (4 if self.norm.offset else size)) + (0 if self.norm.whole else 4))

    def _norm_backward_bytes(self, seq_len: int, size: int) -> int:
        """Beside the gradients of q, k and v, three float32 arrays of all queries where these are narrower."""
        if self.norm is None or size >= 4:
            return 0
        query, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return seq_len * (size * (query + 2 * shared) + 12 * query)

    def legal_tp(self, tp: int) -> str | None:
        if self.heads % tp:
            return f"tp {tp} does not divide the {self.heads} heads"
        if self.kv_heads % tp and tp % self.kv_heads:
            return f"of tp {tp} and the {self.kv_heads} kv_heads, neither divides the other"
        return None


def masks(seq_len: int, size: int, rotary: Rotary | None, window: int | None = None) -> dict[str, int]:
    """Of a sample of several documents: which positions are read, and the angles of those that restart."""
    found: dict[str, int] = {_mask_name(window, seq_len): size * seq_len * seq_len}
    return found if rotary is None else {**found, f"angles {rotary}": 2 * size * seq_len * rotary.dim}


def plain_masks(seq_len: int, size: int, window: int | None, always: bool) -> dict[str, int]:
    """Of samples that are a document each: without a window, only where attention is `always` given a mask."""
    shorter = window is not None and window < seq_len
    return {_mask_name(window, seq_len): size * seq_len * seq_len} if always or shorter else {}


def _mask_name(window: int | None, seq_len: int) -> str:
    return "mask" if window is None or window >= seq_len else f"mask of {window}"
