"""A rank that tells who imported it, and ends as it is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.words.word import Word

IMPORTED_BY = os.getpid()


@dataclass(frozen=True)
class Born(Word):
    rank: RankId
    pid: int
    parent: int
    session: int
    imported_by: int
    umask: int
    descriptors: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class Go(Word):
    """End with a status, or fail."""

    status: int | None


def main(rank: RankId, agent: Pipe, port: Any) -> None:
    command = tuple(Path("/proc/self/cmdline").read_text().split("\0"))
    descriptors = len(os.listdir("/proc/self/fd"))
    agent.send_word(
        Born(rank, os.getpid(), os.getppid(), os.getsid(0), IMPORTED_BY, os.umask(0), descriptors, command),
    )
    word, _ = agent.recv_word()
    assert isinstance(word, Go)
    if word.status is None:
        raise ValueError("a mistake of its own")
    raise SystemExit(word.status)
