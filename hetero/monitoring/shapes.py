"""What the files of a run directory hold, as far as views read it: those of other runs, and of strangers, come too.

A view that gets what fits can count on its types, and on numbers that fit a float and a calendar.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[float, Field(ge=-1e60, le=1e60)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Time = Annotated[float, Field(ge=0, le=1e11)]
"""Unix seconds of years with four digits."""
Figures = dict[str, Number | None]


class _Shape(BaseModel):
    """Further keys may hold what they like."""

    model_config = ConfigDict(strict=True)


class _LinkShape(_Shape):
    source: str
    target: str
    bytes_sent: Number
    bytes_per_s: Number
    exposed_s: Number


class _StageShape(_Shape):
    pipeline: Count
    stage: Count
    pool: str = ""
    host: str | None = None
    slowest_rank: Count | None = None
    forward_s: Number | None = None
    backward_s: Number | None = None
    weight_s: Number | None = None
    wait_s: Number | None = None


class _MetricsLineShape(_Shape):
    step: Count
    time: Time | None = None
    epoch: Count | None = None
    loss: Number | None = None
    eval_loss: Number | None = None
    grad_norm: Number | None = None
    lr: Number | None = None
    step_s: Number | None = None
    tokens_per_s: Number | None = None
    goodput: Number | None = None
    link_ratio: Number | None = None
    emulated: bool = False
    overrun: bool | None = None
    pools: dict[str, Figures] | None = None
    links: list[_LinkShape] | None = None
    stages: list[_StageShape] | None = None


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


Shape = type[_Shape]
RECORD, METRICS_LINE, EVENT = _Shape, _MetricsLineShape, _EventShape
PLANNED, JOB = _PlannedShape, _JobShape


def fits(data: Any, shape: Shape) -> bool:
    """Whether plain data is what a view expects."""
    try:
        shape.model_validate(data)
    except ValidationError:
        return False
    return isinstance(data, dict)
