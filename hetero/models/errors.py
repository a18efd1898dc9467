"""What can be wrong with a model that a user asks for."""

from __future__ import annotations

from typing import Any


class ModelError(Exception):
    """The model cannot be built as asked."""

    def __init__(self, key: str, value: Any, rule: str, remedy: str) -> None:
        super().__init__(f"{key} = {value}: {rule}; {remedy}")
        self.key, self.value, self.rule, self.remedy = key, value, rule, remedy
