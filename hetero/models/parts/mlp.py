"""The part of a layer that works on each position alone, its inner dimension cut over the ranks (unevenly where tp does
not divide it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class SwiGLU(Part):
    """down(silu(gate(x)) * up(x)); `into_stream` is how `down` begins, `initial` the other two."""

    module: ClassVar[str] = "hetero.models.parts.mlp_module:SwiGLUModule"

    hidden: int
    ffn: int
    initial: Normal
    into_stream: Normal

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        inward = TensorLayout.split((self.ffn, self.hidden), 0, tp)
        down = TensorLayout.split((self.hidden, self.ffn), 1, tp)
        return (
            TensorSpec("gate.weight", inward, self.initial),
            TensorSpec("up.weight", inward, self.initial),
            TensorSpec("down.weight", down, self.into_stream),
        )

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are gate, its SiLU, up, and their product, of which the second and the last can be made again; backward
        has the gradients of two of them at once. Pairs are of the three products, of which the first two read the
        same."""
        return PartWork(
            forward_flops=self.product_flops(seq_len),
            collectives=1,
            kept_bytes=seq_len * size * 4 * self.ffn,
            input_bytes=seq_len * size * self.hidden,
            backward_bytes=seq_len * size * 2 * self.ffn,
            elementwise_bytes=seq_len * size * 2 * self.ffn,
            last_flops=2.0 * seq_len * self.hidden * self.ffn,
            weight_flops=self.product_flops(seq_len),
            pair_bytes=seq_len * size * 3 * self.ffn,
            whole_pair_bytes=seq_len * size * 2 * self.hidden,
        )

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} is larger than ffn ({self.ffn})" if tp > self.ffn else None
