"""`trace.json`: the actions of the traced steps in Chrome's trace format, one row per rank, one group per pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hetero.words.step import HostStep, Spans

FIRST_GROUP, FIRST_ROW = 1, 1000
"""To viewers, row 0 of group 0 is the idle one, and a row with its group's number is the group's main thread."""

HOST_SIDE = ("wait", "SYNC")


class Trace:
    """Adds the spans of host reports to one file; `close` makes it whole JSON (viewers accept it unclosed too)."""

    def __init__(self, path: Path, pool_names: dict[str, str] | None = None) -> None:
        """`pool_names` are the titles of the groups, such as `nvidia (A800-80G, emulated)`."""
        self._titles = pool_names or {}
        self._groups: dict[str, int] = {}
        self._rows: set[str] = set()
        self._file = path.open("w", encoding="utf-8")
        self._separator = "[\n"

    def add(self, host: HostStep) -> None:
        """Write the spans of one host's step; a step that was not traced adds nothing."""
        for rank, spans in (host.spans or {}).items():
            self.add_rank(rank, host.host, host.step, spans)
        self._file.flush()

    def add_rank(self, rank: str, host: str, step: int, spans: Spans) -> None:
        """Write what one rank, such as `nvidia:0`, did in a step on its host."""
        pool, _, index = rank.rpartition(":")
        row = {"pid": self._group(pool), "tid": FIRST_ROW + int(index)}
        self._name_row(rank, row, host)
        for name, start_us, end_us in _side_by_side(spans):
            times = {"ts": start_us, "dur": end_us - start_us}
            self._write({"ph": "X", "name": name, **row, **times, "args": {"step": step}})

    def close(self) -> None:
        if not self._file.closed:
            self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
            self._file.close()

    def _group(self, pool: str) -> int:
        if pool not in self._groups:
            number = self._groups[pool] = FIRST_GROUP + len(self._groups)
            self._describe({"pid": number, "tid": FIRST_ROW}, "process", self._titles.get(pool, pool), number)
        return self._groups[pool]

    def _name_row(self, rank: str, row: dict[str, int], host: str) -> None:
        if rank not in self._rows:
            self._rows.add(rank)
            self._describe(row, "thread", f"{rank} on {host}", row["tid"])

    def _describe(self, row: dict[str, int], what: str, name: str, place: int) -> None:
        self._write({"ph": "M", "name": f"{what}_name", **row, "args": {"name": name}})
        self._write({"ph": "M", "name": f"{what}_sort_index", **row, "args": {"sort_index": place}})

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(event))
        self._separator = ",\n"


def _side_by_side(spans: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) in microseconds, none before the end of the one before it: a row's spans must not overlap.

    They do where a chip works behind its host's back: work starts when the host orders it, and the chip begins once it
    is done with the work before. What the host itself does meanwhile is cut short.
    """
    free_us = 0
    for name, start_s, seconds in spans:
        start_us = max(round(start_s * 1e6), free_us)
        if name.partition(" ")[0] in HOST_SIDE:
            free_us = max(start_us, round((start_s + seconds) * 1e6))
        else:
            free_us = start_us + round(seconds * 1e6)
        yield name, start_us, free_us
