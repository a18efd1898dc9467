"""What a comparison has found, unit by unit, and what is wrong by that. Torch-free, so that it is shown without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hetero.align.difference import Difference
from hetero.align.misalignment import Misalignment
from hetero.models.tolerance import Tolerance

REST, HEAD = "sum", "head"
"""What a unit makes of its operators; the last one a loss."""


@dataclass(frozen=True)
class Errors:
    """Relative ones: of what a unit gave, of a gradient, and of the gradients of its tensors by their names within it.
    The gradient is that of what it gave, or of one alone that of what it was given."""

    value: float
    gradient: float
    tensors: Mapping[str, float]

    @property
    def worst(self) -> float:
        return max((self.value, self.gradient, *self.tensors.values()))


@dataclass(frozen=True)
class UnitAlignment:
    """`operators` are judged, in the order in which they compute, where the unit fails alone; `weights` says by tensor
    how it differs from the reference's."""

    number: int
    kind: str
    place: str
    whole: Errors
    alone: Errors
    operators: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Alignment:
    """`units` is empty where tensors are lacking, so that nothing was computed. `emulated`: the reference was computed
    by ranks of chips that are not here."""

    model: str
    reference: str
    dtype: str
    tolerance: Tolerance
    units: Sequence[UnitAlignment]
    lacking: Sequence[Misalignment] = ()
    emulated: bool = False

    @property
    def faults(self) -> list[Misalignment]:
        """Of each unit that fails alone; or where none does, of the first that fails behind others."""
        found = [*self.lacking, *(fault for unit in self.units if (fault := self._fault(unit)))]
        if not found:
            late = next((unit for unit in self.units if unit.whole.worst > self.tolerance.whole), None)
            found = [self._late(late)] if late else []
        return found

    def _fault(self, unit: UnitAlignment) -> Misalignment | None:
        limit = self.tolerance.alone
        if unit.alone.worst <= limit:
            return None
        wrong = {name: error for name, error in unit.operators.items() if error > limit < unit.alone.value}
        learnt = {name: error for name, error in unit.alone.tensors.items() if error > limit}
        if wrong:
            (name, error), what = next(iter(wrong.items())), "value"
        elif unit.alone.value > limit:
            name, error, what = REST, unit.alone.value, "value"
        elif learnt:
            (name, error), what = [*learnt.items()][-1], "gradient"
        else:
            name, error, what = "input", unit.alone.gradient, "gradient"
        name = name.removesuffix(".weight").removesuffix(".bias")
        if unit.weights and (not wrong or name == REST):
            name = _named(*next(iter(unit.weights.items())))
        cause = "; ".join(f"{tensor} {how}" for tensor, how in unit.weights.items())
        return Misalignment(unit.number, unit.kind, unit.place, name, what, error, limit, cause)

    def _late(self, unit: UnitAlignment) -> Misalignment:
        cause = "each unit alone agrees: what differs is the sum of their roundings"
        what = "value" if unit.whole.value > self.tolerance.whole else "gradient"
        return Misalignment(unit.number, unit.kind, unit.place, "", what, unit.whole.worst, self.tolerance.whole, cause)


def _named(tensor: str, how: Difference) -> str:
    """The operator that has the tensor, of a stack the first that differs."""
    name = tensor.removesuffix(".weight")
    return f"{name}[{how.items[0]}]" if how.items else name
