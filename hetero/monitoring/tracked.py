"""What those who watch a run know of it beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrackedPool:
    """A pool in the words of a label."""

    family: str
    chip: str
    chips: int
    emulated: bool


@dataclass(frozen=True)
class TrackedRun:
    """`folder` is the run directory, whose name is the run's; `job` the resolved job as plain data."""

    project: str
    folder: Path
    pools: Mapping[str, TrackedPool]
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def emulated(self) -> bool:
        return any(pool.emulated for pool in self.pools.values())
