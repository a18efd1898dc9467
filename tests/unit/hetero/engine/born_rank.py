"""A rank that tells who imported it, and ends as it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bridge.pipe import Pipe
from bridge.rank import RankId

IMPORTED_BY = os.getpid()


def main(rank: RankId, agent: Pipe, port: Any) -> None:
    agent.send({
        "rank": str(rank),
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "imported_by": IMPORTED_BY,
        "umask": os.umask(0),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "command": Path("/proc/self/cmdline").read_text().split("\0"),
    })  # fmt: skip
    message, _ = agent.recv()
    if message["do"] == "fail":
        raise ValueError("a mistake of its own")
    raise SystemExit(message["status"])
