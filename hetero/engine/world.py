"""The native world of one pool: its process groups over the vendor's own collectives."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from backends.backend import Backend
from backends.communicator import Communicator
from backends.watch import Watch
from bridge.rank import RankId
from hetero.engine.mesh import Connection, Mesh, RankConnections, StrangersBetween, strangers

TIMEOUT = timedelta(minutes=10)
TRIES = 5
"""How often a group is made anew because strangers had come between its ranks."""


class World:
    """All ranks of one pool, and no rank of another. Rank i of the world is chip i of the pool.

    CPU tensors always go over gloo, so small sums are exact in float64 whatever the chip supports. Groups belong to an
    epoch; every rank of the pool must ask for the same groups in the same order.
    """

    def __init__(self, backend: Backend, rank: RankId, size: int, watch: Watch | None = None) -> None:
        self.backend, self.rank, self.size, self.watch = backend, rank, size, watch or Watch()
        self._store: dist.Store | None = None
        self._private = False
        self._tries = 0
        self._groups: dict[tuple[int, ...], dist.ProcessGroup | None] = {}
        self._own: list[dist.ProcessGroup] = []
        self._row = 0

    def open(self, host: str) -> str:
        """Of a pool on several hosts: index 0 makes the meeting point, on this address alone, and returns its
        "host:port"."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        port = listener.getsockname()[1]
        self._store = dist.TCPStore(
            host, port, self.size, is_master=True, timeout=TIMEOUT, wait_for_workers=False,
            master_listen_fd=listener.detach(), use_libuv=False,  # before torch 2.8 the one with libuv takes none
        )  # fmt: skip
        return f"{host}:{port}"

    def join(self, address: str, secret: str) -> None:
        """Meets the rest of a pool on several hosts under keys that begin with `secret`. Blocks until all have come."""
        host, _, port = address.rpartition(":")
        store = self._store or dist.TCPStore(host, int(port), self.size, False, TIMEOUT)
        self._meet(dist.PrefixStore(secret, store))

    def join_here(self, memory: int) -> None:
        """Meets the rest of a pool on one host in `memory`, a file without a name that only its ranks have. It stays
        open as long as the process."""
        self._private = True
        self._meet(dist.FileStore(f"/proc/self/fd/{memory}"))

    def _meet(self, store: dist.Store) -> None:
        store.set_timeout(TIMEOUT)
        self._store = store
        device, collective = self.backend.device_type, self.backend.collective
        names = collective if device == "cpu" else f"cpu:gloo,{device}:{collective}"
        common: dict[str, Any] = {"rank": self.rank.index, "world_size": self.size, "timeout": TIMEOUT}
        self._among_us(
            lambda: dist.init_process_group(names, store=dist.PrefixStore(f"world {self._tries}", store), **common),
            range(self.size),
        )

    def _among_us(self, make: Callable[[], Any], members: Sequence[int]) -> Any:
        """What `make` returns, a group without a stranger. Every rank of the pool comes here, member or not.

        Only in private memory does a rank's word count; between hosts the doors are closed, and no more."""
        found: set[Connection] = set()
        for _ in range(TRIES):
            mesh = Mesh()
            group = make()
            connections = mesh.close()
            found = strangers(self._connections_of(members, connections)) if self._private else set()
            if not found:
                return group
            dist.destroy_process_group(group)
        raise StrangersBetween(self.rank.pool, found)

    def _connections_of(self, members: Sequence[int], mine: RankConnections) -> list[RankConnections]:
        """What each member says of its connections; the same for all who ask, so that all come to one conclusion."""
        assert self._store is not None
        self._tries += 1
        if self.rank.index in members:
            self._store.set(f"ends {self._tries} {self.rank.index}", json.dumps(mine))
        return [RankConnections.told(json.loads(self._store.get(f"ends {self._tries} {index}"))) for index in members]

    def _new_group(self, members: Sequence[int]) -> Any:
        return self._among_us(lambda: dist.new_group(list(members), timeout=TIMEOUT), members)

    def group(self, indices: Sequence[int]) -> dist.ProcessGroup | None:
        """The epoch's group of these ranks for CPU tensors, or None where this rank is not one of them.

        There is one for each set of ranks: with gloo, every group is a thread that wakes a hundred times a second.
        """
        members = tuple(sorted(indices))
        if members not in self._groups:
            group = self._new_group(members)
            self._groups[members] = group if self.rank.index in members else None
        return self._groups[members]

    def communicator(self, name: str, indices: Sequence[int]) -> Communicator | None:
        """The epoch's communicator of these ranks for one purpose, or None where this rank is not one of them.

        It has not met yet: that is for its members to do, in one order over all communicators that they make.
        """
        members = tuple(sorted(indices))
        self._row += 1
        group = None if self.backend.shares_group else self._own_group(members)
        if self.rank.index not in members:
            return None
        return self.backend.communicator(name, self.rank.index, members, self.watch, group, self._row)

    def _own_group(self, members: Sequence[int]) -> dist.ProcessGroup:
        group: dist.ProcessGroup = self._new_group(members)
        if self.rank.index in members:
            self._own.append(group)
        return group

    def end_epoch(self) -> None:
        """Destroys the groups of the epoch; the world itself stays."""
        for group in [*self._groups.values(), *self._own]:
            if group is not None:
                dist.destroy_process_group(group)
        self._groups.clear()
        self._own.clear()

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
