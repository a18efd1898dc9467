"""The `balance:` section of a job."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from balancer.errors import ScheduleError
from balancer.plan.plan import PipelinePlan
from balancer.schedule.registry import schedule

Choice = Literal[
    "micro_batch", "schedule", "recompute", "optimizer", "sequence_parallel", "tp_slices", "experts"
]  # fmt: skip
CHOICES: tuple[Choice, ...] = get_args(Choice)
"""What a search may choose beside pools, tp, cuts and shares."""


class BalanceOptions(BaseModel):
    """Who makes the plan: the balancer (auto), or the job file (manual, with `pipelines`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["auto", "manual"] = Field(
        "auto", description="`auto` searches for a plan, `manual` obeys `pipelines`."
    )
    pipelines: tuple[PipelinePlan, ...] | None = Field(
        None, description="The plan by hand; writing it means mode `manual`."
    )
    live: Literal["auto", "off"] | None = Field(
        None,
        description="`auto`: the balancer changes the plan while the run goes on, where the pools' speeds have changed "
        "and that is worth the move; `off` keeps it. `null` is `auto` for a plan that the balancer made, and `off` for "
        "one by hand.",
    )
    schedule: str = Field("1f1b", description="The order of forwards and backwards on a stage.")
    choose: tuple[Choice, ...] = Field(
        ("recompute", "optimizer"),
        description="What the balancer may choose beside pools, tp, cuts and shares; what is not named is as the job "
        "says, or plain. `all` names everything.",
    )

    @field_validator("choose", mode="before")
    @classmethod
    def _all_is_everything(cls, value: Any) -> Any:
        return CHOICES if value == "all" else value

    @field_validator("schedule")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return schedule(name).name
        except ScheduleError as error:
            raise ValueError(f"{error.rule}; {error.remedy}") from None

    @model_validator(mode="before")
    @classmethod
    def _pipelines_mean_manual(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        written = bool(section.get("pipelines"))
        mode = section.get("mode", "manual" if written else "auto")
        if mode == "auto" and written:
            raise ValueError("mode auto makes its own pipelines; leave them out or set mode to manual")
        if mode == "manual" and not written:
            raise ValueError("mode manual obeys `pipelines`; write at least one or set mode to auto")
        return {**section, "mode": mode}

    def follows(self, by_hand: bool) -> bool:
        """Whether the balancer looks after a run under such a plan."""
        return self.live == "auto" or (self.live is None and not by_hand)
