"""Who holds a folder: a process, and whether it still lives as far as one can see from here."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hetero.foreign import NotPlain, open_plain
from hetero.monitoring.bounds import Time

_MOST_BYTES = 1 << 16


class ClaimHolder(BaseModel):
    """A process. `home` is its kernel and process namespace: within one, `pid` and `started` tell whether it lives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    home: str
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]
    started: str
    since: Time
    nonce: str

    @classmethod
    def this(cls) -> ClaimHolder:
        pid = os.getpid()
        return cls(
            host=socket.gethostname(), home=_home(), pid=pid, started=started_at(pid) or "", since=time.time(),
            nonce=secrets.token_hex(8),
        )  # fmt: skip

    @property
    def lives(self) -> bool | None:
        """None where that cannot be seen from here."""
        if self.home != _home():
            return None
        started = started_at(self.pid)
        return None if started is None and _is_hidden(self.pid) else started == self.started


@dataclass(frozen=True)
class Seen:
    """A claim as it was at one moment. `holder` is None while the file is not written yet."""

    path: Path
    content: bytes
    touched_ns: int

    @property
    def number(self) -> int:
        return int(self.path.name.rpartition("-")[2])

    @property
    def holder(self) -> ClaimHolder | None:
        try:
            return ClaimHolder.model_validate_json(self.content)
        except ValidationError:
            return None

    @property
    def lives(self) -> bool | None:
        return self.holder.lives if self.holder else None

    def __str__(self) -> str:
        """Times are by the clocks of the holder and of its file system."""
        touched = _time(self.touched_ns / 1e9)
        if self.holder is None:
            return f"a process that has not said who it is, last sign of life {touched}"
        who = f"process {self.holder.pid} on host {self.holder.host}"
        return f"{who} since {_time(self.holder.since)}, last sign of life {touched}"


def look(path: Path) -> Seen | None:
    """None if there is no such file. Asks the server of a network file system, as whatever opens a file does."""
    try:
        with open_plain(path) as file:
            return Seen(path, file.read(_MOST_BYTES), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None
    except (PermissionError, NotPlain):  # another user's, or no run's at all; its signs of life can be seen
        return Seen(path, b"", path.stat().st_mtime_ns) if path.exists() else None


def _home() -> str:
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def started_at(pid: int) -> str | None:
    """In ticks since the start of the machine; None if there is no such process, or only what is left of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process of another user, which /proc may not show (its option `hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
