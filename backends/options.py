"""What a job file may say about emulated chips. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SpeedEvent(BaseModel):
    """From step `at_step` on the chip runs at `speed`, in place of the speed before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_step: int = Field(ge=0, description="The first step at the new speed.")
    speed: float = Field(gt=0, description="Relative to the datasheet's chip, as `emulate.speed`.")


class EmulateOptions(BaseModel):
    """The hidden side of an emulated chip, which a planner can only measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed: float = Field(default=1.0, gt=0, description="Relative to what the chip's datasheet promises.")
    jitter: float = Field(default=0.0, ge=0, lt=1, description="Relative spread of each action's time.")
    seed: int = Field(0, description="What the spread is drawn from, together with the chip's index.")
    memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory that the chip really offers, in GiB; `null` is the datasheet's, less the reserve.",
    )
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None,
        description="What the chip is paced as; `null` is the pool's own. A CPU, which is slow at bfloat16, may "
        "compute in float32 for a chip that would not.",
    )
    host_gb_per_s: float | None = Field(
        default=None,
        gt=0,
        description="What its link to its host's memory carries each way, in GB/s; `null` is the datasheet's.",
    )
    events: tuple[SpeedEvent, ...] = Field((), description="Changes of the speed during the run.")

    def speed_at(self, step: int) -> float:
        """The chip's speed in a step: the latest event that has come, else `speed`."""
        past = [event for event in self.events if event.at_step <= step]
        return max(past, key=lambda event: event.at_step).speed if past else self.speed
