"""The native world of one pool: its process groups over the vendor's own collectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import torch.distributed as dist

from backends.backend import Backend
from bridge.rank import RankId

TIMEOUT = timedelta(minutes=10)


class World:
    """All ranks of one pool, and no rank of another. Rank i of the world is chip i of the pool.

    CPU tensors always go over gloo, so small sums are exact in float64 whatever the chip supports. Groups belong to an
    epoch; every rank of the pool must ask for the same groups in the same order.
    """

    def __init__(self, backend: Backend, rank: RankId, size: int) -> None:
        self.backend, self.rank, self.size = backend, rank, size
        self._store: dist.TCPStore | None = None
        self._groups: dict[tuple[int, ...], dist.ProcessGroup | None] = {}
        self._lines: list[dist.ProcessGroup] = []

    def open(self, host: str) -> str:
        """Index 0 makes the meeting point and returns its "host:port"."""
        self._store = dist.TCPStore(host, 0, self.size, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        return f"{host}:{self._store.port}"

    def join(self, address: str) -> None:
        """Blocks until the whole pool has joined."""
        host, _, port = address.rpartition(":")
        store = self._store or dist.TCPStore(host, int(port), self.size, is_master=False, timeout=TIMEOUT)
        device, collective = self.backend.device_type, self.backend.collective
        names = collective if device == "cpu" else f"cpu:gloo,{device}:{collective}"
        dist.init_process_group(names, store=store, rank=self.rank.index, world_size=self.size, timeout=TIMEOUT)

    def group(self, indices: Sequence[int]) -> dist.ProcessGroup | None:
        """The epoch's group of these ranks, or None where this rank is not one of them.

        There is one for each set of ranks: with gloo, every group is a thread that wakes a hundred times a second.
        """
        members = tuple(sorted(indices))
        if members not in self._groups:
            group = dist.new_group(list(members), timeout=TIMEOUT)
            self._groups[members] = group if self.rank.index in members else None
        return self._groups[members]

    def pairwise(self, flows: Callable[[], Sequence[str]]) -> Callable[[str, bool], dist.ProcessGroup]:
        """Groups of the whole pool for sends from rank to rank, by flow and direction.

        Where the library matches the messages of two ranks by order alone, each flow and direction needs a group of its
        own: receives are posted ahead of need, and one flow's message would else land in another's. Flows whose names
        are equal up to a "/" share one: they are sent and received in the same order.
        """
        if self.backend.capabilities.tagged_p2p:
            shared = self.group(range(self.size))
            assert shared is not None
            return lambda flow, up: shared
        groups = {(flow, up): self._line() for flow in flows() for up in (True, False)}
        return lambda flow, up: groups[flow.partition("/")[0], up]

    def _line(self) -> dist.ProcessGroup:
        """One more group of the whole pool."""
        self._lines.append(dist.new_group(list(range(self.size)), timeout=TIMEOUT))
        return self._lines[-1]

    def end_epoch(self) -> None:
        """Destroys the groups of the epoch; the world itself stays."""
        for group in [*self._groups.values(), *self._lines]:
            if group is not None:
                dist.destroy_process_group(group)
        self._groups.clear()
        self._lines.clear()

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
