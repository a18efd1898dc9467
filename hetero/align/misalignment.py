"""What is wrong, and where."""

from __future__ import annotations

from dataclasses import dataclass


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
