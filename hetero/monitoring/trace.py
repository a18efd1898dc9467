"""`trace.json`: the actions of the traced steps in Chrome's trace format, one row per rank, one group per pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hetero.monitoring.record import Report


class Trace:
    """Adds the spans of host reports to one file; `close` makes it whole JSON (viewers accept it unclosed too)."""

    def __init__(self, path: Path, pool_names: dict[str, str] | None = None) -> None:
        """`pool_names` are the titles of the groups, such as `nvidia (A800-80G, emulated)`."""
        self._titles = pool_names or {}
        self._groups: dict[str, int] = {}
        self._rows: set[str] = set()
        self._file = path.open("w", encoding="utf-8")
        self._separator = "[\n"

    def add(self, host: Report) -> None:
        """Write the spans of one host's step; a step that was not traced adds nothing."""
        for rank, spans in (host.get("spans") or {}).items():
            pool, _, index = rank.partition(":")
            group = self._group(pool)
            self._name_row(rank, group, int(index), host["host"])
            for name, start, seconds in spans:
                span = {"ph": "X", "name": name, "pid": group, "tid": int(index), "args": {"step": host["step"]}}
                self._write(span | {"ts": start * 1e6, "dur": seconds * 1e6})
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
            self._file.close()

    def _group(self, pool: str) -> int:
        if pool not in self._groups:
            self._groups[pool] = len(self._groups)
            self._write_name("process_name", self._groups[pool], 0, self._titles.get(pool, pool))
        return self._groups[pool]

    def _name_row(self, rank: str, group: int, index: int, host: str) -> None:
        if rank not in self._rows:
            self._rows.add(rank)
            self._write_name("thread_name", group, index, f"{rank} on {host}")

    def _write_name(self, kind: str, group: int, row: int, name: str) -> None:
        self._write({"ph": "M", "name": kind, "pid": group, "tid": row, "args": {"name": name}})

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(event))
        self._separator = ",\n"
