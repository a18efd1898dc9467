"""What carries messages of known size from rank to rank, and how the pool's own world does. For the bridge see
`bridged.py`.

A message is a row of tensor pieces, packed end to end. Senders never block compute while a slot is free; receivers post
ahead of need and hand out pieces in place.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist


@dataclass
class Crossed:
    """One direction of a link, as one rank sees it: what crossed it, and how long the rank stood still for that."""

    nbytes: int = 0
    waited_s: float = 0.0


@dataclass
class Waits:
    """Seconds a rank stood still since the last reading: for a link, and for somebody's work. `sent` and `received` say
    what crossed the bridge, by the pool at the other end."""

    link_s: float = 0.0
    work_s: float = 0.0
    sent: defaultdict[str, Crossed] = field(default_factory=lambda: defaultdict(Crossed))
    received: defaultdict[str, Crossed] = field(default_factory=lambda: defaultdict(Crossed))

    def clear(self) -> None:
        self.link_s = self.work_s = 0.0
        self.sent.clear()
        self.received.clear()

    def took(self, seconds: float, transfer_s: float = 0.0) -> float:
        """The part of a wait during which the message was on its way is the link's fault, and returned; the rest is its
        sender's."""
        link_s = min(seconds, transfer_s)
        self.link_s += link_s
        self.work_s += seconds - link_s
        return link_s


class Sender(Protocol):
    """One end of a one-way row of messages."""

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        """Returns once the pieces may not be needed again, or are kept alive here; they must not be written to."""

    def drain(self) -> None:
        """Waits until everything sent has arrived."""


class Receiver(Protocol):
    """The other end. `wait` gives the oldest posted message: the caller's to keep, unless the receiver lends it."""

    lends: bool
    """Whether the memory of a message is valid only until `release`."""

    def post(self) -> None: ...

    def wait(self) -> torch.Tensor:
        """The message as a flat tensor, perhaps in host memory."""

    def release(self) -> None: ...


class NativeSender:
    def __init__(self, group: dist.ProcessGroup, target: int, tag: int) -> None:
        self._group, self._target, self._tag = group, target, tag
        self._pending: deque[tuple[Any, torch.Tensor]] = deque()

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        while self._pending and self._pending[0][0].is_completed():
            self._pending.popleft()
        flat = pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])
        self._pending.append((dist.isend(flat, self._target, group=self._group, tag=self._tag), flat))

    def drain(self) -> None:
        while self._pending:
            self._pending.popleft()[0].wait()


class NativeReceiver:
    lends = False

    def __init__(
        self, group: dist.ProcessGroup, source: int, tag: int, empty: Callable[[], torch.Tensor], waits: Waits
    ) -> None:
        self._group, self._source, self._tag, self._empty, self._waits = group, source, tag, empty, waits
        self._posted: deque[tuple[Any, torch.Tensor]] = deque()

    def post(self) -> None:
        flat = self._empty()
        self._posted.append((dist.irecv(flat, self._source, group=self._group, tag=self._tag), flat))

    def wait(self) -> torch.Tensor:
        work, flat = self._posted.popleft()
        began = time.perf_counter()
        work.wait()
        self._waits.took(time.perf_counter() - began)
        return flat

    def release(self) -> None:
        """The tensor belongs to whoever waited for it."""
