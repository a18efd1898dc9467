"""The output projection with its loss, its vocabulary cut over the ranks (unevenly where tp does not divide it)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork

SLICE_BYTES = 64 * 2**20
"""Of a sequence's logits in float32, at tp 1: as many are there at once."""


@dataclass(frozen=True)
class Head(Part):
    """`initial` is of its weight, (vocab, hidden); a bias, if it has one, begins at 0. Logits are multiplied by
    `scale`, and then do not exceed a `cap`: cap * tanh(logit / cap)."""

    module: ClassVar[str] = "hetero.models.parts.head_module:HeadModule"

    vocab: int
    hidden: int
    initial: Normal | Constant
    scale: float = 1.0
    cap: float | None = None
    bias: bool = False

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        weight, bias = (TensorLayout.split(shape, 0, tp) for shape in ((self.vocab, self.hidden), (self.vocab,)))
        found = TensorSpec("head.weight", weight, self.initial), TensorSpec("head.bias", bias, Constant(0.0))
        return found[: 1 + self.bias]

    def slices(self, seq_len: int) -> int:
        """Parts of the vocabulary whose logits are made one after another. They do not depend on tp, so that all ranks
        of a group have as many."""
        return max(1, math.ceil(4 * seq_len * self.vocab / SLICE_BYTES))

    def work(self, seq_len: int, size: int) -> PartWork:
        """In one slice, the loss keeps the logarithms of the softmax in float32; before, there are the logits, and
        after, the gradients of both, in float32 too. In several, two float32 numbers for each token are kept, a slice
        is there at a time, and backward makes its logits again; the gradients of its input are summed in float32. A
        cap keeps what it bends in float32, or has it and its slope beside a slice."""
        flops, slices = self.product_flops(seq_len), self.slices(seq_len)
        logits, wide = -(-seq_len * self.vocab // slices), size + (4 if size < 4 else 0)
        x_bytes = seq_len * size * self.hidden
        bent = 4 * logits if self.cap else 0
        if slices == 1:
            return PartWork(
                forward_flops=flops,
                kept=TpBytes(4 * logits + bent),
                input_bytes=x_bytes,
                forward_bytes=logits * wide,
                backward=TpBytes(8 * logits),
            )
        return PartWork(
            forward_flops=flops,
            remade_flops=flops,
            kept=TpBytes(whole=8 * seq_len),
            input_bytes=x_bytes,
            forward_bytes=logits * wide,
            remade_bytes=logits * wide + bent,
            backward=TpBytes(whole=4 * seq_len * self.hidden + x_bytes),
        )

    def multiplied(self) -> tuple[str, ...]:
        return ()

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} is larger than the vocabulary ({self.vocab})" if tp > self.vocab else None
