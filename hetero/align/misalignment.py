"""What is wrong, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hetero.align.source import Source
from hetero.models.architecture import Architecture
from hetero.models.registry import architecture


@dataclass(frozen=True)
class Misalignment:
    """In unit `unit`, which a directory calls `place`: the first `operator` that differs, or "" where it is the unit.
    `what` differs by `error` where `tolerance` is the most; without an error it could not be computed."""

    unit: int
    kind: str
    place: str
    operator: str
    what: str
    error: float | None = None
    tolerance: float | None = None
    cause: str = ""

    def __str__(self) -> str:
        where = f"unit {self.unit} ({self.kind}{f', {self.place}' if self.place else ''})"
        operator = f", operator {self.operator}" if self.operator else ""
        if self.error is None:
            return f"{where}{operator}: {self.cause}"
        told = f"{where}{operator}: the {self.what} differs by {self.error:.1e}, tolerance {self.tolerance:.1e}"
        return f"{told} ({self.cause})" if self.cause else told


def lacking(source: Source) -> list[Misalignment]:
    """Of each tensor that cannot be read as the model has it. HfError for what else does not fit."""
    model = architecture(source.description)
    faults = [
        Misalignment(number, model.units[number].kind, name.rpartition(".")[0], local.removesuffix(".weight"), "tensor",
              cause=why)
        for name, why in source.lacking().items()
        for number, local in _users(model, source, name)
    ]  # fmt: skip
    return sorted(faults, key=lambda fault: fault.unit)


def _users(model: Architecture, source: Source, name: str) -> Iterator[tuple[int, str]]:
    """Units, and the name within each, of a directory's tensor; of a tie, the unit that borrows."""
    tied, logical = name in source.map.ties, source.map.logical_of(name)
    for number, unit in enumerate(model.units):
        for local, spec in model.tensors(number, 1).items():
            if spec.name in logical and (local in unit.ties) is tied:
                yield number, local
