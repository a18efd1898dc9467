"""What a run records beside its metrics: the `monitor:` section of a job file. Torch-free."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MonitorOptions(BaseModel):
    """Metrics and events are always written; the trace costs a little, so it takes a step now and then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trace_every: int = Field(10, ge=0, description="Steps between traced steps in `trace.json`; 0 traces none.")
