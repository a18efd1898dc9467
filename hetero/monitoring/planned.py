"""The plan as views show it: equal pipelines once, and the chips that it leaves idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.plan.equal import alike, numbered
from hetero.monitoring.journal import Record


@dataclass(frozen=True)
class PlannedStage:
    """Which units (half-open ranges) a stage holds, and where."""

    pool: str
    tp: int
    units: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PlannedPipeline:
    """`share` of the global batch's sequences go through `stages`, `micro_batch` at a time."""

    share: int
    micro_batch: int
    stages: tuple[PlannedStage, ...]

    def chunks(self) -> list[tuple[int, int, PlannedStage]]:
        """(first unit, one past the last, the stage that holds them), in model order."""
        found = [(start, stop, stage) for stage in self.stages for start, stop in stage.units]
        return sorted(found, key=lambda chunk: chunk[:2])


@dataclass(frozen=True)
class EqualPipelines:
    """Pipelines that are alike, by their numbers, and what they are."""

    numbers: tuple[int, ...]
    pipeline: PlannedPipeline

    @property
    def name(self) -> str:
        """Such as "pipelines 0-7 (x 8)"."""
        return f"pipeline{'s' * (len(self.numbers) > 1)} {numbered(self.numbers)}"

    def stage_name(self, stage: int) -> str:
        """Such as 0-7.1."""
        return f"{numbered(self.numbers, counted=False)}.{stage}"


@dataclass(frozen=True)
class IdleChips:
    """`chips` of a pool's `count` that the plan gives no work; `why` is empty where nobody said it."""

    pool: str
    chips: int
    count: int
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        told = "; ".join(filter(None, (self.why, self.remedy)))
        return f"{self.chips} of {self.count} chips of pool {self.pool} idle" + (told and f": {told}")


def planned(plan: Mapping[str, Any]) -> tuple[PlannedPipeline, ...]:
    """Of a `plan.json`, which may be empty."""
    return tuple(
        PlannedPipeline(pipeline["share"], pipeline.get("micro_batch", 1), tuple(map(_stage, pipeline["stages"])))
        for pipeline in plan.get("pipelines") or ()
    )


def equal_pipelines(pipelines: Sequence[PlannedPipeline]) -> tuple[EqualPipelines, ...]:
    return tuple(EqualPipelines(numbers, pipelines[numbers[0]]) for numbers in alike(pipelines))


def idle_chips(
    pipelines: Sequence[PlannedPipeline], pools: Mapping[str, Record], told: Sequence[Record]
) -> tuple[IdleChips, ...]:
    """Of the job's `pools`; by what was `told` when the plan was made where that is known."""
    if not pipelines or told:
        return tuple(IdleChips(**{key: one[key] for key in IdleChips.__annotations__ if key in one}) for one in told)
    used: dict[str, int] = {}
    for stage in (stage for pipeline in pipelines for stage in pipeline.stages):
        used[stage.pool] = used.get(stage.pool, 0) + stage.tp
    counts = {name: int(pool.get("count") or 0) for name, pool in pools.items()}
    left = {name: count - used.get(name, 0) for name, count in counts.items()}
    return tuple(IdleChips(name, idle, counts[name]) for name, idle in left.items() if idle > 0)


def _stage(stage: Mapping[str, Any]) -> PlannedStage:
    units = stage["units"]
    ranges = units if isinstance(units[0], list) else [units]
    return PlannedStage(stage["pool"], stage.get("tp", 1), tuple((start, stop) for start, stop in ranges))
