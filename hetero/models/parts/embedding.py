"""Tokens to vectors: the vocabulary's rows are cut over the ranks, unevenly where tp does not divide them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class Embedding(Part):
    """`initial` is of its weight, (vocab, hidden). Vectors are multiplied by `scale`; then one of each position's own
    is added, where there are `positions`, whose rows are cut as the vocabulary's."""

    module: ClassVar[str] = "hetero.models.parts.embedding_module:EmbeddingModule"

    vocab: int
    hidden: int
    initial: Normal
    scale: float = 1.0
    positions: int | None = None

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        rows = {"embedding": self.vocab} | ({} if self.positions is None else {"positions": self.positions})
        return tuple(
            TensorSpec(f"{name}.weight", TensorLayout.split((count, self.hidden), 0, tp), self.initial)
            for name, count in rows.items()
        )

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are the numbers of positions."""
        return PartWork(collectives=1, kept=TpBytes(whole=0 if self.positions is None else 8 * seq_len))

    def multiplied(self) -> tuple[str, ...]:
        return ()

    @property
    def longest(self) -> int | None:
        return self.positions

    def legal_tp(self, tp: int) -> str | None:
        if self.positions is not None and tp > self.positions:
            return f"tp {tp} is larger than the positions ({self.positions})"
        return f"tp {tp} is larger than the vocabulary ({self.vocab})" if tp > self.vocab else None
