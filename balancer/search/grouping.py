"""Which pools form which pipelines, at which tp, in which order. What is left of a plan is cuts, strategies, shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Segment:
    """A pool's stages in each pipeline of a group: `stages` in a row, each of `tp` chips."""

    pool: str
    tp: int
    stages: int


@dataclass(frozen=True)
class Group:
    """`pipelines` equal pipelines over the same pools, in the order of the segments, with one size of micro-batch."""

    segments: tuple[Segment, ...]
    pipelines: int
    micro_batch: int = 1

    @cached_property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """(pool, tp) of each stage of one pipeline."""
        return tuple((segment.pool, segment.tp) for segment in self.segments for _ in range(segment.stages))


@dataclass(frozen=True)
class Grouping:
    """The groups of a plan, and its schedule."""

    groups: tuple[Group, ...]
    schedule: str

    @property
    def pipelines(self) -> int:
        return sum(group.pipelines for group in self.groups)
