"""The TCP connections between the ranks of a pool: each ends at a fellow, and nobody joins later.

gloo takes whoever connects first while a group is made, and goes on accepting as long as the group lives. Here every
rank says which connections it has called and which it was called by; one that nobody has called is a stranger's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bridge.system.linux import take_no_segments
from hetero.errors import ExplainedError

Address = tuple[str, int]
Connection = tuple[Address, Address]


class StrangersBetween(ExplainedError):
    """Others have connected to the ranks of a pool each time that these connected to each other."""

    failure = True

    def __init__(self, pool: str, found: set[Connection]) -> None:
        who = ", ".join(sorted(f"{host}:{port}" for (host, port), _ in found))
        rule = "while ranks connect to each other, nobody else may connect to them"
        super().__init__(f"pools.{pool}", who, rule, "find out whose connections these are (ss -tnp), and end them")


class RankConnections(NamedTuple):
    """A rank's connections, each as (caller, called)."""

    called: list[Connection]
    answered: list[Connection]

    @classmethod
    def told(cls, data: Any) -> RankConnections:
        """Reads what came as JSON."""
        return cls(*([(tuple(caller), tuple(called)) for caller, called in connections] for connections in data))


class Mesh:
    """What this process opens from now on: to be made before a group is."""

    def __init__(self) -> None:
        self._before = {inode for inode, _ in _tcp_sockets()}

    def close(self) -> RankConnections:
        """From now on nobody can connect: the kernel drops what comes. Returns who is connected already."""
        listening, connected = [], []
        for inode, one in _tcp_sockets():
            if inode in self._before:
                continue
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                take_no_segments(one)
                listening.append(one.getsockname()[:2])
            else:
                connected.append((one.getsockname()[:2], one.getpeername()[:2]))
        return RankConnections(
            called=[(here, there) for here, there in connected if here not in listening],
            answered=[(there, here) for here, there in connected if here in listening],
        )


def strangers(ends: Sequence[RankConnections]) -> set[Connection]:
    """Connections that a rank has answered and none has called."""
    called = {connection for each in ends for connection in each.called}
    return {connection for each in ends for connection in each.answered} - called


def _tcp_sockets() -> Iterator[tuple[int, socket.socket]]:
    """This process's TCP sockets by inode, each a duplicate that is closed when the next is asked for."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected any more
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    yield status.st_ino, one
