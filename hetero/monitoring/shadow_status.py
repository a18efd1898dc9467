"""What was found when a little of a run was last computed again by another pool, for views."""

from __future__ import annotations

from dataclasses import dataclass

from hetero.monitoring.metrics_line import MetricsLine


@dataclass(frozen=True)
class ShadowStatus:
    """At the index of a step: `error` is the larger one of the unit, None where that is no number, `tolerance` what it
    may be, `place` the stage, such as 0.1, `pool` its own and `by` that of the shadow."""

    step: int
    place: str
    pool: str
    by: str
    unit: str
    error: float | None
    tolerance: float

    @classmethod
    def of(cls, record: MetricsLine | None) -> ShadowStatus | None:
        """None where the line tells of none."""
        if record is None or not (found := record.get("shadow")):
            return None
        errors = [found.get("value"), *([found["gradient"]] if "gradient" in found else [])]
        return cls(
            step=record["step"],
            place=f"{found['pipeline']}.{found['stage']}",
            pool=found.get("pool") or "",
            by=found.get("by") or "",
            unit=f"{found.get('unit', '')} {found.get('unit_kind') or ''}".strip(),
            error=None if None in errors else max(filter(None, errors), default=0.0),
            tolerance=found.get("tolerance") or 0.0,
        )

    @property
    def drifts(self) -> bool:
        return self.error is None or self.error > self.tolerance

    def __str__(self) -> str:
        error = "not finite" if self.error is None else f"{self.error:.1e}"
        where = f"stage {self.place} on {self.pool}, unit {self.unit}, by {self.by} at step {self.step}"
        return f"{error} of {self.tolerance:.0e} ({where})"
