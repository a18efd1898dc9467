"""Waiting until everyone, host or rank, has said its part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class RollCall(Generic[T]):
    """One part from each of `members`. A second part of a member, or a stranger's, changes nothing."""

    def __init__(self, members: Iterable[str]) -> None:
        self._missing = set(members)
        self.parts: dict[str, T] = {}

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(self._missing)

    def add(self, member: str, part: T) -> bool:
        """Whether this part made it whole; true once only."""
        if member not in self._missing:
            return False
        self._missing.remove(member)
        self.parts[member] = part
        return not self._missing
