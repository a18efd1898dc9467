"""Between an agent and its fork server, which makes its ranks."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.rank import RankId
from bridge.words.word import Answer, Order, Word


@dataclass(frozen=True)
class Forked(Answer):
    """`pids` by index of the rank; `versions` by package."""

    pids: dict[int, int]
    versions: dict[str, str]


@dataclass(frozen=True)
class Fork(Order[Forked]):
    """Fork these ranks; with two descriptors for each, of its pipe to the agent and of its port."""

    ranks: tuple[RankId, ...]


@dataclass(frozen=True)
class Exited(Word):
    """A rank has ended; `status` below 0 is the signal that ended it."""

    rank: RankId
    status: int
