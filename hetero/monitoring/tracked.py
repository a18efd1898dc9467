"""What those who watch a run know of it beforehand, and by which labels its figures are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hetero.words.pool import Pool


@dataclass(frozen=True)
class TrackedRun:
    """`folder` is the run directory, whose name is the run's; `job` the resolved job as plain data."""

    project: str
    folder: Path
    pools: Mapping[str, Pool]
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def emulated(self) -> bool:
        return any(pool.emulated for pool in self.pools.values())

    def labels(self, pool: str | None = None) -> dict[str, str]:
        """Of a figure of the run, or of one of its pools."""
        if pool is None:
            return {"run": self.name, "emulated": _word(self.emulated)}
        tracked = self.pools[pool]
        return {"run": self.name, "pool": pool, "family": tracked.family, "emulated": _word(tracked.emulated)}

    def link_labels(self, source: str, target: str) -> dict[str, str]:
        """A link is as real as both its ends."""
        emulated = any(self.pools[end].emulated for end in (source, target))
        return {"run": self.name, "source": source, "target": target, "emulated": _word(emulated)}


def _word(flag: bool) -> str:
    return "true" if flag else "false"
