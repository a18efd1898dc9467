"""Tokens to vectors: the vocabulary's rows are cut over the ranks, unevenly where tp does not divide them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class Embedding(Part):
    """`initial` is of its weight, (vocab, hidden)."""

    module: ClassVar[str] = "hetero.models.parts.embedding_module:EmbeddingModule"

    vocab: int
    hidden: int
    initial: Normal

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        layout = TensorLayout.split((self.vocab, self.hidden), 0, tp)
        return (TensorSpec("embedding.weight", layout, self.initial),)

    def work(self, seq_len: int, size: int) -> PartWork:
        return PartWork(collectives=1)

    def multiplied(self) -> tuple[str, ...]:
        return ()

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} is larger than the vocabulary ({self.vocab})" if tp > self.vocab else None
