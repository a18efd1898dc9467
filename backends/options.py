"""What a job file may say about emulated chips. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SpeedEvent(BaseModel):
    """From step `at_step` on the chip runs at `speed`, in place of the speed before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_step: int = Field(ge=0)
    speed: float = Field(gt=0)


class EmulateOptions(BaseModel):
    """The hidden side of an emulated chip, which a planner can only measure.

    `speed` is relative to what the chip's data sheet promises, `jitter` the relative spread of each action's time
    (drawn from `seed` and the chip's index), `memory_gib` a cap in place of the data sheet's memory. `precision` is
    what the chip is paced as: float32 arithmetic here may stand for bfloat16 there, which a CPU computes more slowly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed: float = Field(default=1.0, gt=0)
    jitter: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0
    memory_gib: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    events: tuple[SpeedEvent, ...] = ()

    def speed_at(self, step: int) -> float:
        """The chip's speed in a step: the latest event that has come, else `speed`."""
        past = [event for event in self.events if event.at_step <= step]
        return max(past, key=lambda event: event.at_step).speed if past else self.speed
