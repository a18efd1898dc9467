"""What of a unit's values a stage does not keep for backward, which makes it again."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Recompute = Literal["none", "selective", "full"]


class RecomputedUnits(BaseModel):
    """Units of a stage from its first on: so many in full, the next so many selectively, the rest not at all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    full: int = Field(0, ge=0, description="Units of which only the input is kept.")
    selective: int = Field(0, ge=0, description="Units after these whose element-wise values are made again.")

    def __str__(self) -> str:
        return " + ".join(f"{count} {word}" for word, count in self if count) or "none"

    @property
    def count(self) -> int:
        return self.full + self.selective

    def of(self, number: int) -> Recompute:
        """Of the stage's unit of that number, counted from 0."""
        if number < self.full:
            return "full"
        return "selective" if number < self.count else "none"


def read_recompute(value: Any) -> Recompute | RecomputedUnits:
    """One word for all units, or numbers of them; ValueError for anything else."""
    if value in get_args(Recompute):
        return value  # type: ignore[no-any-return]
    try:
        return RecomputedUnits.model_validate(value)
    except ValidationError:
        words = ", ".join(get_args(Recompute))
        raise ValueError(f"is one of {words}, or numbers of units such as {{full: 2, selective: 4}}") from None
