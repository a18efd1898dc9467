"""What can be wrong with data that a user names."""

from __future__ import annotations

from typing import Any

from hetero.errors import ExplainedError


class DataError(Exception):
    """The data cannot be used as asked."""

    def __init__(self, key: str, value: Any, rule: str, remedy: str) -> None:
        super().__init__(f"{key} = {value}: {rule}; {remedy}")
        self.key, self.value, self.rule, self.remedy = key, value, rule, remedy


class RecordError(ExplainedError):
    """What stands at one place of a source cannot be used as asked; `line` counts from 1, of rows where the file has no
    lines."""
