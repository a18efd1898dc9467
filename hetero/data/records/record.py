"""One record of a file, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hetero.data.errors import RecordError

KEY = "data.source"


@dataclass(frozen=True)
class RecordPlace:
    """A line or row of a file, counted from 1."""

    file: Path
    number: int

    def error(self, value: Any, rule: str, remedy: str, key: str = KEY) -> RecordError:
        """The error for what stands there."""
        return RecordError(key, value, rule, remedy, file=str(self.file), line=self.number)


@dataclass(frozen=True)
class DataRecord:
    """`values` are a record's fields by name; or `text` is a whole document; or `tokens` are one, made by others, of
    which `learnt` are learnt, (n,) bool; None means all. `share` says how much of the file has been read with it, of 1.
    """

    place: RecordPlace
    values: Mapping[str, Any] | None = None
    text: bytes | None = None
    tokens: npt.NDArray[Any] | None = None
    learnt: npt.NDArray[np.bool_] | None = None
    share: float = 1.0

    def field(self, name: str) -> Any:
        """Raises RecordError if it has none of that name, and names those that it has."""
        values = self.values or {}
        if name not in values or values[name] is None:
            there = ", ".join(repr(key) for key in values) or "none"
            rule = f"has no field {name!r}; its fields are {there}"
            raise self.place.error(name, rule, "name the one that is meant with data.fields", key="data.fields")
        return values[name]

    def string(self, name: str) -> str:
        """A field that is a text. Raises RecordError if it is not."""
        value = self.field(name)
        if not isinstance(value, str):
            raise self.place.error(
                name, f"is {type(value).__name__}, not text", "name another field with data.fields", key="data.fields"
            )
        return value
