"""A rank's channels of the bridge, between whose slots and its chip copies go while it computes."""

from __future__ import annotations

from functools import partial

from backends.backend import Backend
from bridge.port.port import Channel, Port
from bridge.words.channel import ChannelSpec
from hetero.transfer.copy_queue import CopyQueue, fail_port


class Channels:
    """Opened one by one, their slots pinned where the chip can; `outward` and `inward` wait for copies.

    name  of the threads that wait
    """

    def __init__(self, backend: Backend, port: Port, name: str = "") -> None:
        self._backend, self._port = backend, port
        failed = partial(fail_port, port, backend)
        self.outward, self.inward = (CopyQueue(backend, f"{name}{way}", failed) for way in ("out", "in"))
        self._pinned: list[memoryview] = []

    def open(self, spec: ChannelSpec) -> Channel:
        """With as many slots as `spec` says."""
        channel = self._port.open(spec)
        views = [channel.slots.view(slot) for slot in range(spec.slots)]
        self._pinned += [view for view in views if self._backend.pin(view)]
        return channel

    def close(self) -> None:
        """Unpins the slots, which their channels are about to unmap, once no copy needs them."""
        for queue in (self.outward, self.inward):
            queue.close()
        for view in self._pinned:
            self._backend.unpin(view)
        self._pinned.clear()
