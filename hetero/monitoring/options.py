"""What a run records beside its metrics: the `monitor:` section of a job file. Torch-free."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PortNumber = Annotated[int, Field(ge=1, le=65535)] | Literal["auto"] | None


class TrackerChoice(BaseModel):
    """Where curves go besides `metrics.jsonl`. The name alone is enough: `tensorboard`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="`tensorboard`, `wandb`, `mlflow`, or one that a package brings.")
    options: dict[str, Any] = Field(default_factory=dict, repr=False, description="What this tracker takes.")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class MonitorOptions(BaseModel):
    """Metrics and events are always written; the trace costs a little, so it takes a step now and then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trace_every: int = Field(10, ge=0, description="Steps between traced steps in `trace.json`; 0 traces none.")
    trackers: tuple[TrackerChoice, ...] = Field((), description="Tools that get the curves too.")
    port: PortNumber = Field(
        None, description="Port of the driver's host, on 127.0.0.1, of a live web page; `auto` takes a free one."
    )
    prometheus_port: PortNumber = Field(
        None, description="Port of the driver's host, on 127.0.0.1, that serves the metrics; `auto` takes a free one."
    )
