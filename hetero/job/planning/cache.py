"""Measurements that are kept between runs, by what they depend on. A convenience: whatever is wrong with the place, a
run goes on without it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hetero.paths import cache_home
from hetero.private import private_files

Row = dict[str, Any]
WITHOUT = "measurements are not kept between runs"


class MeasurementCache:
    """The rows of one run. `tell` hears once why they are not kept, if they are not."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told = tell, False

    def rows(self, facts: Any, measure: Callable[[], list[Row]]) -> list[Row]:
        """What was measured before under the same `facts`, plain data, else what `measure` finds now."""
        name = f"{_digest(facts)[:32]}.json"
        if (rows := self._read(name)) is None:
            rows = measure()
            self._write(name, rows)
        return rows

    def _read(self, name: str) -> list[Row] | None:
        """None too where a file is damaged; it is written anew then."""
        try:
            found = json.loads((cache_folder() / name).read_bytes())
            return found["rows"] if found["digest"] == _digest(found["rows"]) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    @private_files()
    def _write(self, name: str, rows: list[Row]) -> None:
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"{name}.{os.getpid()}"
            unfinished.write_text(json.dumps({"digest": _digest(rows), "rows": rows}))
            unfinished.replace(folder / name)
        except OSError as error:
            if not self._told:
                self._tell(f"{WITHOUT}: {error}")
            self._told = True


def cache_folder() -> Path:
    """Where they lie. Raises OSError without a home."""
    return cache_home() / "calibration"


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
