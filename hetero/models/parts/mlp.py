"""The part of a layer that works on each position alone, its inner dimension cut over the ranks (unevenly where tp does
not divide it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork

Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class MLP(Part):
    """down(act(gate(x)) * up(x)) or, where it is not `gated`, down(act(up(x))); `bias` is of all of them. `into_stream`
    is how `down` begins, `initial` the others. Without a gate there is no `silu`."""

    module: ClassVar[str] = "hetero.models.parts.mlp_module:MLPModule"

    hidden: int
    ffn: int
    initial: Normal
    into_stream: Normal
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False

    @property
    def inward(self) -> tuple[str, ...]:
        """Names of the products with its input."""
        return ("gate", "up") if self.gated else ("up",)

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        inward = TensorLayout.split((self.ffn, self.hidden), 0, tp)
        down = TensorLayout.split((self.hidden, self.ffn), 1, tp)
        weights = *((name, inward, self.initial) for name in self.inward), ("down", down, self.into_stream)
        found = [TensorSpec(f"{name}.weight", layout, initial) for name, layout, initial in weights]
        if self.bias:
            cut, whole = TensorLayout.split((self.ffn,), 0, tp), TensorLayout.replicated((self.hidden,), tp)
            found += [TensorSpec(f"{name}.bias", cut, Constant(0.0)) for name in self.inward]
            found.append(TensorSpec("down.bias", whole, Constant(0.0), by_rows=True))
        return tuple(found)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are the results of the products inward, the gate's activation, and what `down` reads, of which the last
        two can be made again; backward has the gradients of two of them at once, or of one without a gate. Pairs are of
        all products, of which those inward read the same."""
        inward, made = len(self.inward), 2 if self.gated else 1
        inner = seq_len * size * self.ffn
        return PartWork(
            forward_flops=self.product_flops(seq_len),
            collectives=1,
            kept=TpBytes(inner * (inward + made)),
            input_bytes=seq_len * size * self.hidden,
            backward=TpBytes(inward * inner),
            elementwise=TpBytes(made * inner),
            last_flops=2.0 * seq_len * self.hidden * self.ffn,
            weight_flops=self.product_flops(seq_len),
            pairs=TpBytes((inward + 1) * inner, whole=seq_len * size * 2 * self.hidden),
        )

    def legal_tp(self, tp: int) -> str | None:
        return f"tp {tp} is larger than ffn ({self.ffn})" if tp > self.ffn else None
