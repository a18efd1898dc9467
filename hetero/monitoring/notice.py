"""What somebody wants in a run's journal, where it becomes an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Notice:
    """`kind` and `data` are the event's; so is what is known of when it was, and whose."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    epoch: int | None = None
    pool: str | None = None
    rank: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The keywords of `EventJournal.write`."""
        where = {"step": self.step, "epoch": self.epoch, "pool": self.pool, "rank": self.rank}
        return {key: value for key, value in where.items() if value is not None} | dict(self.data)
