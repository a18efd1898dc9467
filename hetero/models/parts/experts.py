"""The part of a layer where each position goes to some of many MLPs, and perhaps to one that all share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import Part, PartWork
from hetero.models.parts.routing import Routing


@dataclass(frozen=True)
class ClampedGate:
    """g * sigmoid(alpha * g) * (u + 1) of a gate g of at most `limit`, and u within -limit and limit."""

    alpha: float
    limit: float


@dataclass(frozen=True)
class Experts(Part):
    """Sum over a token's experts of weight * down(silu(gate(x)) * up(x)), or with a `clamped` gate. Beside them a
    shared expert of width `shared_ffn`, if that is not 0, which every token has; where `shared_gate`, times
    sigmoid(w x). `bias` is that of all three products of an expert. `into_stream` is how `down` begins, `initial` all
    others.

    The experts' matrices are one logical tensor for each of the three, (experts, out, in). The ranks of a stage have
    the whole stream, so each makes what its own part of the experts gives to all tokens, and one all-reduce sums that,
    as after any MLP. *Split*, a rank has a slice of each expert's inner dimension: equal work, but every rank gathers
    all of `chosen` copies of the stream, and its products are as narrow as slices are. *Spread*, a rank has some
    experts whole: wide products and a share of the copies, but ranks wait for the one whose experts are chosen most.
    An all-to-all would move `chosen / tp` of the stream twice where the all-reduce moves all of it twice, and needs
    ranks that have rows of the stream; it is worth more where a stage's ranks outnumber the chosen experts.
    """

    module: ClassVar[str] = "hetero.models.parts.experts_module:ExpertsModule"

    hidden: int
    ffn: int
    routing: Routing
    initial: Normal
    into_stream: Normal
    shared_ffn: int = 0
    shared_gate: bool = False
    bias: bool = False
    clamped: ClampedGate | None = None

    @property
    def expert_count(self) -> int:
        return self.routing.experts

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return tuple(self._tensors(tp, spread=False))

    def spread_tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return tuple(self._tensors(tp, spread=True))

    def multiplied(self) -> tuple[str, ...]:
        """Of the shared expert alone: others are stacks, and choices have no adapters."""
        return tuple(spec.name for spec in self._shared(1)) if self.shared_ffn else ()

    def _tensors(self, tp: int, spread: bool) -> Iterator[TensorSpec]:
        yield from self.routing.tensors(self.hidden, tp, self.initial)
        yield from self._experts(tp, spread)
        if self.shared_ffn:
            yield from self._shared(tp)

    def _experts(self, tp: int, spread: bool) -> Iterator[TensorSpec]:
        """The last bias is cut along the stream's width, so that one rank adds each element of it."""
        count, inner, outer = self.routing.experts, (self.ffn, self.hidden), (self.hidden, self.ffn)
        for name, shape, cut, initial in (
            ("gate", inner, 1, self.initial),
            ("up", inner, 1, self.initial),
            ("down", outer, 2, self.into_stream),
        ):
            weight = TensorLayout.split((count, *shape), 0 if spread else cut, tp)
            yield TensorSpec(f"experts.{name}.weight", weight, initial)
            if self.bias:
                layout = TensorLayout.split((count, shape[0]), 0 if spread else 1, tp)
                yield TensorSpec(f"experts.{name}.bias", layout, Constant(0.0))

    def _shared(self, tp: int) -> Iterator[TensorSpec]:
        inward = TensorLayout.split((self.shared_ffn, self.hidden), 0, tp)
        down = TensorLayout.split((self.hidden, self.shared_ffn), 1, tp)
        yield TensorSpec("shared.gate.weight", inward, self.initial)
        yield TensorSpec("shared.up.weight", inward, self.initial)
        yield TensorSpec("shared.down.weight", down, self.into_stream)
        if self.shared_gate:
            weight = TensorLayout.replicated((1, self.hidden), tp, "summed")
            yield TensorSpec("shared.weight.weight", weight, self.initial)

    @property
    def largest_weight(self) -> int:
        """Gradients of experts are made one after another."""
        return self.hidden * max(self.ffn, self.shared_ffn, self.routing.experts)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Products are those of a token's own experts, and of the router, whose gradient cannot be put off. Of each row
        (a token with one of its experts) are kept gate, its SiLU, up, and their product, of which the second and the
        last can be made again, or without the second where the gate is clamped; and numbers of tokens and experts,
        and weights, on every rank. Rows are taken to be spread evenly over the experts, and so over the ranks.
        Backward comes to the shared expert last."""
        rows = seq_len * self.routing.chosen
        routed, shared = size * rows * self.ffn, size * seq_len * self.shared_ffn
        x_bytes, made_again = seq_len * size * self.hidden, 2 * shared + (0 if self.clamped else 2 * routed)
        gate = size * seq_len * (self.hidden + 1) if self.shared_gate else 0  # what is multiplied with it, and it
        return PartWork(
            forward_flops=self._product_flops(seq_len) + 2.0 * seq_len * self.hidden * self.routing.experts,
            collectives=1,
            kept=TpBytes((3 if self.clamped else 4) * routed + 4 * shared, self._routing_bytes(seq_len, size) + gate),
            input_bytes=x_bytes,
            forward_bytes=self._forward_bytes(x_bytes, routed),
            backward=TpBytes(4 * routed + rows * self.ffn if self.clamped else 2 * routed),
            elementwise=TpBytes(made_again),
            weight_flops=self._product_flops(seq_len),
            pairs=TpBytes(3 * routed + 3 * shared, whole=2 * x_bytes + gate),
        )

    def _product_flops(self, seq_len: int) -> float:
        """Without the router's."""
        inner = self.routing.chosen * self.ffn + self.shared_ffn
        return 2.0 * seq_len * self.hidden * (3 * inner + self.shared_gate)

    def _routing_bytes(self, seq_len: int, size: int) -> int:
        routing, rows = self.routing, seq_len * self.routing.chosen
        scores = 4 * rows if routing.scores == "chosen_softmax" else 4 * seq_len * routing.experts
        normalised = 4 * (rows + seq_len) if routing.normalised else 0
        bias = (4 + size) * seq_len * routing.experts if self.bias else 0
        return scores + normalised + bias + rows * (3 * 8 + size)

    def _forward_bytes(self, x_bytes: int, routed: int) -> int:
        """Of the tokens of one expert, what the shared one gave, or what a clamped gate makes on its way."""
        of_one = x_bytes * self.routing.chosen // self.routing.experts
        passing = max(of_one, 2 * routed - x_bytes) if self.clamped else of_one
        return passing + (x_bytes if self.shared_ffn else 0)

    def legal_tp(self, tp: int) -> str | None:
        narrowest = min(self.ffn, self.shared_ffn or self.ffn)
        return f"tp {tp} is larger than an expert's width ({narrowest})" if tp > narrowest else None
