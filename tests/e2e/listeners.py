"""Every socket at which a process can be reached: TCP and UDP that has no peer, and Unix sockets by name.

docs/security.md has a table of them, which is compared here with what processes have open.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil

from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "security.md"
HEADING = "| process | socket | on one machine | on a cluster | what guards it |"
_LISTENS, _UNCONNECTED = 0x10000, 1


@dataclass(frozen=True)
class Listener:
    """`kind` is tcp, udp or unix, `where` what the table says: loopback, host or everywhere; path or name."""

    process: str
    kind: str
    where: str
    address: str

    def __str__(self) -> str:
        return f"{self.kind} {self.address} of {self.process[:120]}"


@dataclass(frozen=True)
class Row:
    """One of the table: parts of command lines, and where their sockets may be, by the heading of the column."""

    processes: tuple[str, ...]
    kind: str
    where: dict[str, str]
    guard: str

    def covers(self, listener: Listener, column: str) -> bool:
        """Whether this is one of its sockets."""
        ours = any(process in listener.process for process in self.processes)
        return ours and listener.kind == self.kind and listener.where in self.where[column].split(", ")


def table() -> list[Row]:
    lines = PAGE.read_text().splitlines()
    start = lines.index(HEADING)
    columns = [name.strip() for name in HEADING.strip("|").split("|")]
    rows = []
    for line in takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        cells = dict(zip(columns, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        processes = tuple(re.findall(r"`([^`]+)`", cells["process"]))
        rows.append(Row(processes, cells["socket"], cells, cells["what guards it"]))
    return rows


def differences(found: set[Listener], column: str) -> list[str]:
    """Sockets that the table does not know, and rows of it that no socket is like."""
    rows = table()
    assert all(row.processes and row.guard for row in rows)
    unknown = {str(one) for one in found if not any(row.covers(one, column) for row in rows)}
    sure = [row for row in rows if "none" not in row.where[column]]
    unseen = [row for row in sure if not any(row.covers(one, column) for one in found)]
    return [*sorted(unknown), *(f"nobody listens as {row.processes[0]}, {row.kind}" for row in unseen)]


def listeners(processes: Iterable[psutil.Process]) -> set[Listener]:
    """Of those that still run."""
    unix = dict(_unix_sockets())
    found: set[Listener] = set()
    for process in processes:
        try:
            found |= set(_of(process, unix))
        except (psutil.Error, OSError):
            continue
    return found


def _of(process: psutil.Process, unix: dict[int, str]) -> Iterator[Listener]:
    who = " ".join(process.cmdline())
    for one in process.net_connections("inet"):
        kind = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}[one.type]
        if one.status == psutil.CONN_LISTEN or (kind == "udp" and not one.raddr):
            yield Listener(who, kind, _where(one.laddr.ip), one.laddr.ip)
    for name in (unix[inode] for inode in _inodes(process.pid) if inode in unix):
        yield Listener(who, "unix", "name" if name.startswith("@") else "path", name)


def _where(ip: str) -> str:
    address = ipaddress.ip_address(ip.removeprefix("::ffff:"))
    return "loopback" if address.is_loopback else "everywhere" if address.is_unspecified else "host"


def _inodes(pid: int) -> Iterator[int]:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _unix_sockets() -> Iterator[tuple[int, str]]:
    """Inode and name of those that have a name and wait for others."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, state, inode, *name = line.split(maxsplit=7)
        if name and (int(flags, 16) & _LISTENS or int(state, 16) == _UNCONNECTED):
            yield int(inode), name[0]
