"""What this package raises. Every error says what is wrong, by which rule, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class BackendError(Exception):
    """`key` had `value`, which `rule` forbids; `remedy` says what to do."""

    def __init__(self, key: str, value: Any, rule: str, remedy: str) -> None:
        super().__init__(key, value, rule, remedy)
        self.key = key
        self.value = value
        self.rule = rule
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.key}: {self.value}: {self.rule}. {self.remedy}"


class ChipError(BackendError):
    """A chip is unknown, its data sheet is wrong, or it lacks what is asked of it."""


class FamilyError(BackendError):
    """A chip family is unknown or cannot be loaded."""


class DeviceError(BackendError):
    """The device cannot be used from this process."""


class OutOfMemory(BackendError):
    """A chip's memory cannot hold what a stage needs."""


class NoAnswer(BackendError):
    """A chip of the pool did not come to an operation that another one waits for."""

    @classmethod
    def of(cls, name: str, me: int, peer: int, seconds: float) -> NoAnswer:
        return cls(
            name,
            f"chip {me} with chip {peer}",
            f"the other end did not come to the operation within {seconds:g} s",
            "Look at what that chip's process waits for: members must issue a group's operations in one order.",
        )


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one if any is near, else all of them."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(value.lower(), names, n=1)
    if near:
        return f"Did you mean {names[near[0]]}?"
    return f"Known: {', '.join(sorted(names.values()))}."
