"""The output projection with its loss, its vocabulary cut over the ranks (unevenly where tp does not divide it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class Head(Part):
    """`initial` is of its weight, (vocab, hidden)."""

    module: ClassVar[str] = "hetero.models.parts.head_module:HeadModule"

    vocab: int
    hidden: int
    initial: Normal

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        layout = TensorLayout.split((self.vocab, self.hidden), 0, tp)
        return (TensorSpec("head.weight", layout, self.initial),)

    def work(self, seq_len: int, size: int) -> PartWork:
        """The loss keeps the logarithms of the softmax in float32; before, there are the logits, and after, the
        gradients of both, in float32 too."""
        logits = seq_len * self.vocab
        return PartWork(
            forward_flops=self.product_flops(seq_len),
            kept_bytes=4 * logits,
            input_bytes=seq_len * size * self.hidden,
            forward_bytes=logits * (size + (4 if size < 4 else 0)),
            backward_bytes=8 * logits,
        )

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} is larger than the vocabulary ({self.vocab})" if tp > self.vocab else None
