"""The plan: who computes which units with which chips, for how many sequences of the global batch.

The balancer writes it, the runtime obeys it, checkpoints record it, a person reads and edits it. What a person wrote
leaves things open, which `balancer.completion.completion` fills in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
)

from balancer.errors import PlanError, did_you_mean
from balancer.plan.recompute import Recompute, RecomputedUnits, read_recompute
from bridge.layout.axes import Axes
from bridge.rank import RankId

Range = tuple[int, int]
Place = tuple[int, int]  # (pipeline, stage)
_STRATEGIES = "recompute", "sequence_parallel", "tp_slices", "optimizer", "experts"
"""Fields of a stage that are written only where they ask for more than the plain way."""
_NUMBERS = re.compile(r"\[[\d\s,\[\]]+\]")


class Chunk(NamedTuple):
    """A chunk in model order: `index` is its virtual stage, `units` a half-open range."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a chunk
    stage: int
    units: Range


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StagePlan(_Model):
    """One tensor-parallel group and its chunks.

    `units` reads [a, b] or [[a, b], ...] and is always a tuple of ranges here. None until completed: `chips` (indices
    in the pool; position i along the stage's axes is chips[i]), `precision` (its pool's), `warmup` (forwards before the
    first backward, which is the bound on micro-batches in flight) and `owns` (ranges of the units whose state this
    stage updates)."""

    pool: str = Field(description="Whose chips compute the stage.")
    tp: int = Field(default=1, ge=1, description="How many of them, as one tensor-parallel group.")
    units: tuple[Range, ...] = Field(
        description="[a, b], half-open, or a list of such ranges for several chunks. A pipeline holds each unit once."
    )
    chips: tuple[int, ...] | None = Field(None, description="Indices in the pool; `null` places stages in order.")
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Of the stage's arithmetic: that of its pool."
    )
    warmup: int | None = Field(
        default=None, ge=1, description="Forwards before the first backward; `null` is as deep as hides the links."
    )
    owns: tuple[Range, ...] | None = Field(
        None, description="Ranges of the units whose state this stage updates; `null` spreads them by speed."
    )
    recompute: Recompute | RecomputedUnits = Field(
        "none",
        description="What backward makes again, not kept: `none`, `selective` (norms and other element-wise values), "
        "`full` (all of a unit but its input), or how many units from the stage's first on.",
    )
    sequence_parallel: bool = Field(
        False,
        description="Between the split parts each chip of the group holds some tokens of the residual stream, not all.",
    )
    tp_slices: int = Field(
        1,
        ge=1,
        description="In how many slices, along the tokens, a split part's last product is made: the group sums one "
        "while the next is computed.",
    )
    optimizer: Literal["chip", "host"] = Field(
        "chip",
        description="Where masters and moments of what the stage owns lie, and are updated: on its chips or in their "
        "hosts' memory.",
    )
    experts: Literal["split", "spread"] = Field(
        "split",
        description="How the chips of the group hold a layer's experts: each a slice of every expert, or some experts "
        "whole.",
    )

    @field_validator("units", mode="before")
    @classmethod
    def _one_range_is_a_list_of_one(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            one = bool(value) and all(isinstance(v, int) for v in value)
            return tuple(tuple(v) if isinstance(v, list) else v for v in ([value] if one else value))
        return value

    @field_validator("recompute", mode="before")
    @classmethod
    def _a_word_or_numbers(cls, value: Any) -> Any:
        return read_recompute(value)

    @field_serializer("units")
    def _list_of_one_is_a_range(self, units: tuple[Range, ...]) -> Any:
        return list(units[0]) if len(units) == 1 else [list(r) for r in units]

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Strategies that a plan does not ask for are left out: it reads as one that knows nothing of them."""
        plain = set(_STRATEGIES) - self.strategies().keys()
        return {name: value for name, value in serialize(self).items() if name not in plain}

    def strategies(self) -> dict[str, Any]:
        """Those that ask for more than the plain way, by field."""
        fields = type(self).model_fields
        return {name: value for name in _STRATEGIES if (value := getattr(self, name)) != fields[name].default}

    @property
    def axes(self) -> Axes:
        """Along which the stage's chips lie, in their order."""
        return Axes.of(tp=self.tp)

    def recompute_of(self, unit: int) -> Recompute:
        """Of one of the stage's units."""
        if isinstance(self.recompute, RecomputedUnits):
            return self.recompute.of(self.unit_indices().index(unit))
        return self.recompute

    def unit_indices(self) -> tuple[int, ...]:
        return tuple(u for a, b in sorted(self.units) for u in range(a, b))

    def owned_units(self) -> tuple[int, ...]:
        return tuple(u for a, b in self.owns or () for u in range(a, b))


TickCount = Annotated[int, Field(ge=0)]


class ChunkTicks(NamedTuple):
    """Of one chunk and micro-batch. A backward in two actions has the collectives that a whole one hides beside its
    gradients of weights in the open, `hidden` ticks in its first part."""

    forward: TickCount
    inputs: TickCount
    weights: TickCount
    hidden: TickCount = 0


class Ticks(_Model):
    """What a timed schedule is made for, in whole parts of a common measure, so that all ranks make the same of it. Of
    a micro-batch, by chunk in model order. By boundary: how long an activation and a gradient occupy the link, and how
    much later each arrives."""

    chunks: tuple[ChunkTicks, ...] = Field(
        description="By chunk in model order: forward, gradient of the input, gradients of the weights, and "
        "collectives that a backward hides where it is one action (0, if left out)."
    )
    hops: tuple[tuple[TickCount, TickCount, TickCount], ...] = Field(
        description="By boundary between chunks: an activation and a gradient on the link, and its latency."
    )


class PipelinePlan(_Model):
    """Stages that together hold the model. `share` is in sequences per step; `replicas: n` writes n equal pipelines."""

    share: int = Field(ge=1, description="Sequences of the global batch; the pipelines' shares sum to it.")
    micro_batch: int = Field(default=1, ge=1, description="Sequences in one action; divides `share`.")
    stages: tuple[StagePlan, ...] = Field(min_length=1, description="In model order; together they hold the model.")
    replicas: int = Field(default=1, ge=1, description="Writes this pipeline so many times.")
    ticks: Ticks | None = Field(
        None, description="What a timed schedule reckons with, in whole parts; `null` is what the balancer expects."
    )

    @property
    def micro_batches(self) -> int:
        return self.share // self.micro_batch

    def chunks(self) -> tuple[Chunk, ...]:
        """All chunks in model order."""
        placed = sorted((units, s) for s, stage in enumerate(self.stages) for units in stage.units)
        return tuple(Chunk(i, s, units) for i, (units, s) in enumerate(placed))

    def stage_of_chunk(self) -> tuple[int, ...]:
        """The stage of each chunk, in model order: what schedules are made for."""
        return tuple(chunk.stage for chunk in self.chunks())

    def warmups(self) -> tuple[int, ...]:
        """Of a completed plan, per stage."""
        return tuple(_known(stage.warmup, "warmup") for stage in self.stages)


class Plan(_Model):
    version: Literal[1] = 1
    epoch: int = Field(default=0, ge=0)
    job_fingerprint: str = ""
    schedule: str = "1f1b"
    pipelines: tuple[PipelinePlan, ...] = Field(min_length=1)

    def stages(self) -> Iterator[tuple[Place, StagePlan]]:
        """All stages with their places."""
        for p, pipeline in enumerate(self.pipelines):
            for s, stage in enumerate(pipeline.stages):
                yield (p, s), stage

    def with_stages(self, change: Callable[[Place, StagePlan], StagePlan]) -> Plan:
        """With each stage as `change` makes it of the one that stands there. Nothing is checked anew."""
        pipelines = [
            pipeline.model_copy(update={"stages": tuple(change((p, s), one) for s, one in enumerate(pipeline.stages))})
            for p, pipeline in enumerate(self.pipelines)
        ]
        return self.model_copy(update={"pipelines": tuple(pipelines)})

    def pools(self) -> set[str]:
        """Names of the pools that have a stage."""
        return {stage.pool for _, stage in self.stages()}

    def precisions(self) -> dict[str, str]:
        """Of a completed plan: what the pools that have a stage compute in."""
        return {stage.pool: _known(stage.precision, "precision") for _, stage in self.stages()}

    def to_json(self) -> str:
        """Indented for people, with each list of numbers on one line. Fields that are still open are left out."""
        text = self.model_dump_json(indent=2, exclude_none=True)
        return _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]"), text)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Raises PlanError that names the first wrong key."""
        try:
            return Plan.model_validate_json(text)
        except ValidationError as error:
            raise _plan_error(error) from None


def stage_ranks(plan: Plan, pipeline: int, stage: int) -> tuple[RankId, ...]:
    """The ranks of a completed stage, in the order of their positions along its axes."""
    placed = plan.pipelines[pipeline].stages[stage]
    return tuple(RankId(placed.pool, chip) for chip in _known(placed.chips, "chips"))


def owner_of(plan: Plan, unit: int) -> Place:
    """The stage that updates a unit's state, in a completed plan."""
    for place, stage in plan.stages():
        if any(a <= unit < b for a, b in stage.owns or ()):
            return place
    raise PlanError("owns", unit, "no stage owns this unit", "complete the plan first")


def _known(value: Any, field: str) -> Any:
    if value is None:
        raise PlanError(field, None, "the plan is not complete", "call balancer.completion.completion.complete first")
    return value


def _plan_error(error: ValidationError) -> PlanError:
    faults = error.errors()
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    remedy = "see the plan format in the documentation"
    if first["type"] == "extra_forbidden":
        fields = {name for model in (Plan, PipelinePlan, StagePlan) for name in model.model_fields}
        remedy = did_you_mean(str(first["loc"][-1]), fields)
    return PlanError(key or "plan", first["input"], first["msg"].lower().removeprefix("value error, "), remedy)
