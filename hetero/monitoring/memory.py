"""What a plan says that chips hold, against what their drivers say after a run's first steps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hetero.monitoring.notice import Notice

TOLERANCE = 0.05
LEAST = 0.01
"""Of what the chip offers: less is an allocator's rounding, and decides nothing."""


@dataclass
class MemoryCheck:
    """`predicted` gives the bytes of a chip of a pipeline's stage. Of the pipelines of a plan, the first whose stage
    differs speaks for the same stage of all that its pool has."""

    predicted: Callable[[int, int], int]
    _told: set[tuple[str, int, bool]] = field(default_factory=set)

    def used(self, pool: str, said: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Notice]:
        """Takes what a rank has `said` (see `Epoch`); `facts` are when and who. `memory_differs` where its chip holds
        over 5% more or less than the plan says."""
        predicted, measured = self._predicted(said["pipeline"], said["stage"]), said["held_bytes"]
        if predicted is None:
            return []
        one = pool, said["stage"], measured > predicted
        apart = abs(measured - predicted)
        if apart <= TOLERANCE * predicted or apart <= LEAST * said["limit_bytes"] or one in self._told:
            return []
        self._told.add(one)
        where = {"pipeline": said["pipeline"], "stage": said["stage"]}
        sizes = {"predicted_bytes": predicted, "measured_bytes": measured, "tensors_bytes": said["peak_bytes"]}
        return [Notice("memory_differs", {**where, **sizes, "ratio": measured / predicted}, pool=pool, **facts)]

    def _predicted(self, pipeline: int, stage: int) -> int | None:
        """None of a stage that no plan has: a rank said so, who is not always right."""
        try:
            return self.predicted(pipeline, stage) if min(pipeline, stage) >= 0 else None
        except IndexError:
            return None
