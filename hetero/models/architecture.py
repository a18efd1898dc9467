"""What a model tells of itself: its units, where it may be cut, what crosses there, and what it costs. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from balancer.cost.workload import UnitWork, Workload
from bridge.layout.layout import LayoutError
from bridge.precision import ITEM_BYTES
from hetero.layers.spec import TensorSpec
from hetero.models.parts.embedding import Embedding
from hetero.models.parts.part import Part
from hetero.models.unit import LOSS, STREAM, Unit


@dataclass(frozen=True)
class Architecture:
    """The `units` in model order. `boundary` has the tensors that cross between them, with the size of their last
    dimension; the others are (B, T)."""

    units: tuple[Unit, ...]
    boundary: Mapping[str, int]

    def __post_init__(self) -> None:
        for unit in self.units:
            if unit != self._of_kind[unit.kind]:
                raise ValueError(
                    f"units of kind {unit.kind!r} are not alike, but are measured and counted as if they were"
                )

    @property
    def legal_cuts(self) -> frozenset[int]:
        """Numbers of the units at which a chunk may begin."""
        return frozenset(range(len(self.units)))

    @property
    def tied(self) -> tuple[tuple[int, int], ...]:
        """Pairs of units that use one tensor, its own unit first."""
        return tuple((owner, number) for number, unit in enumerate(self.units) for owner, _ in unit.ties.values())

    def tensors(
        self, unit: int, tp: int, sequence_parallel: bool = False, spread: bool = False
    ) -> dict[str, TensorSpec]:
        """The logical tensors that a unit uses, by their name within the unit, laid out over tp ranks, which may have
        rows of the stream, and experts `spread` over them.

        LayoutError where tp is illegal; IndexError where there is no such unit.
        """
        reason = self.legal_tp(tp)
        if reason:
            raise LayoutError("tp", tp, reason, "choose a tp that divides heads and kv_heads")
        found, ties = self.units[unit].tensors(tp, sequence_parallel, spread), self.units[unit].ties
        owners = {name: ties.get(name, (unit, name)) for name in found}
        return {name: replace(found[name], name=f"units.{owner}.{own}") for name, (owner, own) in owners.items()}

    @cached_property
    def frozen(self) -> frozenset[str]:
        """The logical tensors that do not train."""
        specs = (spec for unit in range(len(self.units)) for spec in self.tensors(unit, 1).values())
        return frozenset(spec.name for spec in specs if not spec.trains)

    def legal_tp(self, tp: int) -> str | None:
        """Why the model cannot be split over tp ranks, or None if it can."""
        reasons = (part.legal_tp(tp) for unit in self._of_kind.values() for part in unit.parts)
        return next((reason for reason in reasons if reason), None)

    @property
    def expert_count(self) -> int:
        """Experts of the layer that has the fewest, 0 where none has any."""
        counts = (part.expert_count for unit in self._of_kind.values() for part in unit.parts)
        return min(filter(None, counts), default=0)

    @property
    def longest(self) -> int | None:
        """The longest sample that the model is made for, None where it is for any."""
        found = (part.longest for unit in self._of_kind.values() for part in unit.parts)
        return min((longest for longest in found if longest is not None), default=None)

    @property
    def parameter_count(self) -> int:
        """Elements of all logical tensors, tied ones once."""
        specs = {spec.name: spec for unit in range(len(self.units)) for spec in self.tensors(unit, 1).values()}
        return sum(math.prod(spec.layout.shape) for spec in specs.values())

    @property
    def refused(self) -> dict[str, str]:
        """Strategies that no stage may have, with the reason."""
        return {
            name: why for unit in self._of_kind.values() for part in unit.parts for name, why in part.refused.items()
        }

    @property
    def alone(self) -> str | None:
        """Why samples cannot be of several documents, None where they can."""
        reasons = (part.alone for unit in self._of_kind.values() for part in unit.parts)
        return next((reason for reason in reasons if reason), None)

    @property
    def unlike(self) -> str | None:
        """A tensor that does not begin at random as its authors have it, None where all do."""
        reasons = (part.unlike for unit in self._of_kind.values() for part in unit.parts)
        return next((reason for reason in reasons if reason), None)

    def workload(self, seq_len: int, global_batch: int, precision: str, packed: bool = False) -> Workload:
        """The balancer's view; `precision` is that of activations, where a pool has no other. `packed` samples are of
        several documents."""
        by_precision = {name: self._work(seq_len, size, packed) for name, size in ITEM_BYTES.items()}
        return Workload(
            units=by_precision[precision],
            seq_len=seq_len,
            global_batch=global_batch,
            legal_cuts=self.legal_cuts,
            tied=self.tied,
            by_precision=by_precision,
            experts=self.expert_count,
            refused=self.refused,
            packed=packed,
        )

    def _work(self, seq_len: int, size: int, packed: bool) -> tuple[UnitWork, ...]:
        crossing = seq_len * size * sum(self.boundary.values())
        made = {
            kind: unit.work(seq_len, size, 0 if unit.gives == LOSS else crossing, packed)
            for kind, unit in self._of_kind.items()
        }
        return tuple(made[unit.kind] for unit in self.units)

    @cached_property
    def _of_kind(self) -> dict[str, Unit]:
        """The first unit of each kind."""
        return {unit.kind: unit for unit in reversed(self.units)}


Layer = Mapping[str, tuple[Part, ...]]
"""The units of a layer by kind, each added to the residual stream."""


def decoder(
    embedding: Embedding,
    layers: Sequence[Layer],
    head: tuple[Part, ...],
    tied: bool,
    branches: tuple[int, ...] = (),
    scale: float = 1.0,
) -> Architecture:
    """Embedding, layers, and what makes a loss of the residual stream; where `tied`, with the embedding's weight.

    `branches` and `scale` are those of the layers' units."""
    inner = (
        Unit(kind, parts, residual=True, branches=branches, scale=scale)
        for layer in layers
        for kind, parts in layer.items()
    )
    ties = {"head.weight": (0, "embedding.weight")} if tied else {}
    last = Unit("head", head, gives=LOSS, ties=ties)
    return Architecture((Unit("embedding", (embedding,)), *inner, last), {STREAM: embedding.hidden})
