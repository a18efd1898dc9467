"""What an architecture tells of itself, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from balancer.workload import Workload
from hetero.layers.spec import TensorSpec
from hetero.models.dimensions import Dimensions


@dataclass(frozen=True)
class UnitSpec:
    """One unit: the smallest part of the model that a stage can hold. Units of a kind cost the same."""

    kind: str
    name: str


class Architecture(Protocol):
    """A family of models. `builder` names its `build_unit` as "module:function"; that module may import torch."""

    builder: ClassVar[str]

    @staticmethod
    def units(dims: Dimensions) -> tuple[UnitSpec, ...]:
        """The units in model order."""

    @staticmethod
    def legal_cuts(dims: Dimensions) -> frozenset[int]:
        """Numbers of the units at which a chunk may begin."""

    @staticmethod
    def boundary(dims: Dimensions) -> dict[str, int]:
        """The tensors that cross between units, with the size of their last dimension; the others are (B, T)."""

    @staticmethod
    def tensors(dims: Dimensions, unit: int, tp: int) -> Mapping[str, TensorSpec]:
        """The logical tensors that a unit uses, by their name within the unit, laid out over tp ranks."""

    @staticmethod
    def tied(dims: Dimensions) -> tuple[tuple[int, int], ...]:
        """Pairs of units that use one tensor."""

    @staticmethod
    def legal_tp(dims: Dimensions, tp: int) -> str | None:
        """Why the model cannot be split over tp ranks, or None if it can."""

    @staticmethod
    def parameter_count(dims: Dimensions) -> int:
        """Elements of all logical tensors, tied ones once."""

    @staticmethod
    def workload(dims: Dimensions, seq_len: int, global_batch: int, precision: str) -> Workload:
        """What the units cost, for the balancer."""
