"""Measurements that are kept between runs, by what they depend on. A convenience: whatever is wrong with the place, a
run goes on without it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hetero.paths import cache_home
from hetero.private import private_files

Row = dict[str, Any]
WITHOUT = "measurements are not kept between runs"


@dataclass(frozen=True)
class Kept:
    """`rows` as they were measured `where` (plain data), `at` that time (seconds since 1970)."""

    rows: list[Row]
    where: Any = None
    at: float = 0.0


class MeasurementCache:
    """The rows of one run. `tell` hears once why they are not kept, if they are not."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told = tell, False

    def rows(self, facts: Any, measure: Callable[[], list[Row]], again: bool = False) -> list[Row]:
        """What was measured before under the same `facts`, plain data, unless it is to be measured `again`; else what
        `measure` finds now."""
        kept = None if again else self.kept(facts)
        return (kept or self.keep(facts, None, measure())).rows

    def kept(self, facts: Any, where: Any = None) -> Kept | None:
        """What was measured there. None too where the file is damaged; it is written anew then."""
        return self._read(_name(facts, where))

    def newest(self, facts: Any) -> Kept | None:
        """What was measured last, wherever that was."""
        try:
            names = [path.name for path in cache_folder().glob(f"{_digest(facts)[:32]}*.json")]
        except OSError:
            return None
        return max(filter(None, map(self._read, names)), key=lambda kept: kept.at, default=None)

    @private_files()
    def keep(self, facts: Any, where: Any, rows: list[Row]) -> Kept:
        """In place of what was measured there before. Where nothing could be measured, that is tried again."""
        kept, name = Kept(rows, where, time.time()), _name(facts, where)
        if not rows:
            return kept
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"{name}.{os.getpid()}"
            unfinished.write_text(json.dumps({"digest": _digest(asdict(kept)), **asdict(kept)}))
            unfinished.replace(folder / name)
        except OSError as error:
            if not self._told:
                self._tell(f"{WITHOUT}: {error}")
            self._told = True
        return kept

    def _read(self, name: str) -> Kept | None:
        try:
            found = json.loads((cache_folder() / name).read_bytes())
            kept = Kept(found["rows"], found["where"], found["at"])
            return kept if found["digest"] == _digest(asdict(kept)) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None


def cache_folder() -> Path:
    """Where they lie. Raises OSError without a home."""
    return cache_home() / "calibration"


def _name(facts: Any, where: Any) -> str:
    return f"{_digest(facts)[:32]}{'' if where is None else '-' + _digest(where)[:16]}.json"


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
