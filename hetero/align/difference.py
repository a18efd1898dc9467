"""How the values of one tensor differ from those of another."""

from __future__ import annotations

from dataclasses import dataclass

MOST_NAMED = 3


@dataclass(frozen=True)
class Difference:
    """`how` in words; `items` are those of a stack that differ, where the others do not."""

    how: str
    items: tuple[int, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if len(self.items) > MOST_NAMED else ""
        where = f" in {', '.join(map(str, self.items[:MOST_NAMED]))}{more}" if self.items else ""
        return f"differs{where}: {self.how}"
