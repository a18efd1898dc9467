"""What was measured of a job's chips and links, and what planning makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import median
from typing import Any

from backends.chip import ChipSpec
from balancer.cost.times import UPDATE_BYTES
from balancer.simulate.band import Noise

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Profile:
    """Rows of three kinds: with the keys of a `TimedUnit`, of a `Rate`, and of `Session.probe`, as if no emulated chip
    were slowed. `where` says on which machines and with what software, `at` when (seconds since 1970)."""

    rows: Sequence[Row] = ()
    where: Mapping[str, Any] | None = None
    at: float = 0.0

    def units(self, micro_batch: int | None = None) -> list[Row]:
        """Of all micro-batches, or of one."""
        rows = [row for row in self.rows if "kind" in row]
        return [row for row in rows if micro_batch is None or row.get("micro_batch", micro_batch) == micro_batch]

    @property
    def rates(self) -> list[Row]:
        return [row for row in self.rows if "part" in row]

    @property
    def links(self) -> list[Row]:
        return [row for row in self.rows if "source" in row]

    def chip(self, pool: str, sheet: ChipSpec) -> ChipSpec:
        """The pool's chip with the rates that were measured in place of its data sheet's."""
        update, all_reduce = self._per_s(pool, "update"), self._largest(pool, "all_reduce")
        host = min(
            self._per_s(pool, "to_host") or inf,
            self._per_s(pool, "from_host") or inf,
            UPDATE_BYTES * self._per_s(pool, "host_update") or inf,
        )
        ring = 2 * (all_reduce["tp"] - 1) / all_reduce["tp"] * all_reduce["per_s"] if all_reduce else 0.0
        return replace(
            sheet,
            memory_bytes_per_s=UPDATE_BYTES * update or sheet.memory_bytes_per_s,
            host_bytes_per_s=sheet.host_bytes_per_s if host == inf else host,
            interconnect_bytes_per_s=ring or sheet.interconnect_bytes_per_s,
        )

    def noise(self) -> dict[str, Noise]:
        """By pool, of those that were measured."""
        units: dict[str, list[Row]] = {}
        for row in self.units():
            if row["forward_s"] > 0:
                units.setdefault(row["pool"], []).append(row)
        return {pool: _noise(rows, self._largest(pool, "update")) for pool, rows in units.items()}

    def _per_s(self, pool: str, part: str) -> float:
        row = self._largest(pool, part)
        return float(row["per_s"]) if row else 0.0

    def _largest(self, pool: str, part: str) -> Row | None:
        """Of the largest group."""
        rows = [row for row in self.rates if (row["pool"], row["part"]) == (pool, part)]
        return max(rows, key=lambda row: int(row["tp"]), default=None)


NOTHING_MEASURED = Profile()


def _noise(rows: Sequence[Row], update: Row | None) -> Noise:
    """A model's time is a sum over kinds of units, whose errors are independent; the layers' two count most. Updates
    that nobody measured are as their data sheet says."""
    spread = median(float(row.get("spread", 0.0)) for row in rows)
    repeats = min(int(row.get("repeats", 1)) for row in rows)
    return Noise(spread, spread / sqrt(2 * repeats), spread / sqrt(update["repeats"]) if update else 0.0)
