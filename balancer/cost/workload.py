"""What there is to compute, unit by unit, as numbers. Models write it, the balancer reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

LegalTp = Callable[[int], str | None]
"""Of a model: why it cannot be split over so many chips, or None where it can."""
GRADIENT_BYTES = 4  # summed in float32 over micro-batches and pipelines


@dataclass(frozen=True)
class TpBytes:
    """Of one sequence: a group's ranks divide `split` among them, and each has all of `whole`."""

    split: int = 0
    whole: int = 0

    def on_rank(self, tp: int) -> float:
        return self.whole + self.split / tp

    def __add__(self, other: TpBytes) -> TpBytes:
        return TpBytes(self.split + other.split, self.whole + other.whole)


NO_BYTES = TpBytes()


@dataclass(frozen=True)
class UnitWork:
    """One unit. Per sequence: `forward_flops`, `activation_bytes` (kept for backward at tp 1, of which every rank of a
    group keeps `whole_bytes`) and `boundary_bytes` (leaving it towards the next unit; also the size of each of its
    `tp_collectives` forward all-reduces). Its forward and its backward need a boundary tensor more for a while, and at
    tp 1 `forward_bytes` and `backward_bytes`; and `last_bytes` on every rank, when only `whole_bytes` are still kept.
    `largest_tensor` is a number of parameters, of those that train. A backward in two actions leaves `weight_flops` to
    the second, and keeps `pairs` until then. Of `whole_bytes`, `gathered_bytes` are whole on the ranks of a
    sequence-parallel stage too.

    Of its `parameters`, `frozen` do not train: backward makes no gradients of them, which saves `frozen_flops` of twice
    those of forward. Of those that do, `undivided` are counted whole on every rank.

    Backward makes again, by `remade_flops` beside twice those of forward, what is `remade`, which lies there beside
    what else it needs. `recomputed` has what changes where more is made again and less is kept; a sequence-parallel
    stage then keeps `apart_bytes` more on every rank, which were gathered from what is made again. Units share what has
    one name, in bytes of a sequence at any tp: where samples are packed, a chunk has each of `masks` once for a
    micro-batch in flight; where they are not, a stage has each of `plain_masks` once for all."""

    kind: str
    forward_flops: float
    parameters: int
    activation_bytes: int
    boundary_bytes: int
    tp_collectives: float = 0
    whole_bytes: int = 0
    gathered_bytes: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    last_bytes: int = 0
    largest_tensor: int = 0
    frozen: int = 0
    frozen_flops: float = 0.0
    undivided: int = 0
    weight_flops: float = 0.0
    pairs: TpBytes = NO_BYTES
    remade_flops: float = 0.0
    remade: TpBytes = NO_BYTES
    apart_bytes: int = 0
    masks: Mapping[str, int] = field(default_factory=dict, hash=False)
    plain_masks: Mapping[str, int] = field(default_factory=dict, hash=False)
    recomputed: Mapping[str, UnitWork] = field(default_factory=dict, hash=False)

    @property
    def trained(self) -> int:
        """The parameters that train."""
        return self.parameters - self.frozen

    @property
    def product_flops(self) -> float:
        """Of a forward's products with weights: all but attention's square. A unit whose backward is never two actions
        has no square."""
        return self.weight_flops + self.frozen_flops or self.forward_flops

    @property
    def backward_flops(self) -> float:
        """Without what is made again."""
        return 2 * self.forward_flops - self.frozen_flops

    @property
    def model_flops(self) -> float:
        """Of forward and backward: what an MFU counts."""
        return self.forward_flops + self.backward_flops

    def kept_bytes(self, tp: int, stream_parts: int = 1) -> float:
        """For backward, on one rank, per sequence; the stream is cut into `stream_parts` for the group's
        ranks."""
        return self.kept_whole_bytes(stream_parts) + (self.activation_bytes - self.whole_bytes) / tp

    def kept_whole_bytes(self, stream_parts: int) -> float:
        """Of these, what tp does not divide."""
        apart = self.apart_bytes if stream_parts > 1 else 0
        return apart + self.gathered_bytes + (self.whole_bytes - self.gathered_bytes) / stream_parts

    def under(self, recompute: str) -> UnitWork:
        """The same where a stage recomputes it that way."""
        return self.recomputed.get(recompute, self)


@dataclass(frozen=True)
class Update:
    """What the update rule needs for each parameter that a chip owns, in float32 numbers: `moments` at all times,
    `temporaries` while it runs, `unfused` in their place where the family has no fused update."""

    moments: int = 2
    temporaries: int = 0
    unfused: int = 1


@dataclass(frozen=True)
class Workload:
    """A model at one sequence length and global batch (in sequences).

    `legal_cuts` are the unit indices where a chunk may begin (0 is always one). `tied` pairs (first, later) units
    that use one weight: the first unit's parameters count it, the later's don't. `by_precision` has the units as pools
    of another precision than the job's hold them: they differ in bytes alone. `update` is AdamW's unless told.
    `experts` are those of the layer that has the fewest, 0 where none has any: their work is that of the chosen ones,
    their parameters are those of all. `refused` says of strategies why no stage has them. `packed` samples are of
    several documents. FLOPs stay those of whole ones, which are the most that it may take. `sent_gradient_bytes` are
    those of a parameter's gradient on its way to its owner. `shadow` is the pool, if any, whose first chip now and then
    computes a micro-batch of another pool's stage again.
    """

    units: tuple[UnitWork, ...]
    seq_len: int
    global_batch: int
    legal_cuts: frozenset[int]
    tied: tuple[tuple[int, int], ...] = ()
    by_precision: Mapping[str, tuple[UnitWork, ...]] = field(default_factory=dict)
    update: Update = Update()
    experts: int = 0
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)
    packed: bool = False
    sent_gradient_bytes: int = GRADIENT_BYTES
    shadow: str | None = None

    def at(self, precision: str) -> Workload:
        """The same where it is computed in `precision`."""
        if precision not in self._at:
            self._at[precision] = replace(self, units=self.by_precision.get(precision, self.units))
        return self._at[precision]

    @cached_property
    def _at(self) -> dict[str, Workload]:
        return {}

    @cached_property
    def trained(self) -> int:
        """The parameters that train."""
        return sum(unit.trained for unit in self.units)

    @cached_property
    def least_boundary_bytes(self) -> int:
        """Of a sequence behind the unit that gives least."""
        return min(unit.boundary_bytes for unit in self.units)

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Every place where a chunk may begin or end, ascending, 0 and n included."""
        return tuple(sorted({0, len(self.units)} | {c for c in self.legal_cuts if c < len(self.units)}))
