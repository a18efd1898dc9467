"""What the files of a run directory hold, as far as views read it: those of other runs, and of strangers, come too.

A view that gets what fits can count on its types, and on numbers that fit a float and a calendar.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from hetero.monitoring.bounds import Count, Number, Time
from hetero.monitoring.metrics_line import MetricsLine


class _Shape(BaseModel):
    """Further keys may hold what they like."""


class _EventShape(_Shape):
    kind: str
    seq: Count = 0
    time: Time | None = None
    step: Count | None = None
    epoch: Annotated[int, Field(ge=-1)] | None = None
    """Runs of earlier releases say -1 before the first."""
    pool: str | None = None
    rank: str | None = None
    data: dict[str, Any] | None = None


class _IdleShape(_Shape):
    pool: str
    chips: Count
    count: Count
    why: str = ""
    remedy: str = ""


class _PlannedShape(_Shape):
    """What the event `planned` tells."""

    time_scale: Number | None = None
    calibrated: list[dict[str, Any]] | None = None
    rates: list[dict[str, Any]] | None = None
    probed: list[dict[str, Any]] | None = None
    idle: list[_IdleShape] | None = None


class _PoolShape(_Shape):
    family: str = ""
    chip: str = ""
    count: Count | None = None
    chips_per_host: Count | None = None
    emulate: dict[str, Any] | None = None


class _TrainShape(_Shape):
    steps: Count | None = None


class _JobShape(_Shape):
    name: str | Count | None = None
    train: _TrainShape | None = None
    pools: dict[str, _PoolShape] | None = None


Shape = TypeAdapter[Any]
RECORD, METRICS_LINE, EVENT = TypeAdapter(_Shape), TypeAdapter(MetricsLine), TypeAdapter(_EventShape)
PLANNED, JOB = TypeAdapter(_PlannedShape), TypeAdapter(_JobShape)


def fits(data: Any, shape: Shape) -> bool:
    """Whether plain data is what a view expects."""
    try:
        shape.validate_python(data, strict=True)
    except ValidationError:
        return False
    return isinstance(data, dict)
