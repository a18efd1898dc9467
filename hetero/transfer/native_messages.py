"""Messages inside a pool, over the vendor's library: from each chip to each other one in one row.

The library matches the messages of two chips by order alone, and all in one direction share a communicator. A receiver
is told the sender's order, and so what comes next: what it has not asked for yet it takes all the same, and keeps.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch

from backends.communicator import Communicator, Work
from hetero.transfer.messages import Destination, pack, unpack
from hetero.transfer.waits import Waits


class NativeMessages:
    """A rank's ends. `up` carries to higher numbers of the pool, `down` to lower ones, so that a pair of chips never
    waits in one direction for the other."""

    def __init__(self, up: Communicator | None, down: Communicator | None, me: int, waits: Waits) -> None:
        self._up, self._down, self._me, self._waits = up, down, me, waits
        self._incoming: dict[int, _Row] = {}

    def begin(self, orders: Mapping[int, Sequence[Hashable]]) -> None:
        """Names what will come from each chip next, in the order of its sending."""
        for source, row in self._incoming.items():
            row.order.extend(orders[source])

    def sender(self, target: int) -> NativeSender:
        return NativeSender(self._communicator(self._me, target), target)

    def receiver(self, source: int, name: Hashable, numel: int, dtype: torch.dtype) -> NativeReceiver:
        """All messages of a row have one size and type."""
        if source not in self._incoming:
            self._incoming[source] = _Row(self._communicator(source, self._me), source, numel, dtype)
        row = self._incoming[source]
        assert (row.numel, row.dtype) == (numel, dtype), "messages of a row are alike"
        return NativeReceiver(row, name, self._waits)

    def _communicator(self, source: int, target: int) -> Communicator:
        found = self._up if source < target else self._down
        assert found is not None, "the pool has communicators for messages from chip to chip"
        return found


def greet(up: Communicator, down: Communicator, me: int, pairs: Sequence[tuple[int, int]]) -> None:
    """First contacts of all (source, target) that will have messages. Everyone goes through them in one order, so none
    waits for another in a circle."""
    for source, target in sorted(pairs):
        if me in (source, target):
            (up if source < target else down).greet(target if me == source else source, sends=me == source)


class _Posted(NamedTuple):
    work: Work
    flat: torch.Tensor


class _Row:
    """What comes from one chip, in the order of its sending."""

    def __init__(self, communicator: Communicator, source: int, numel: int, dtype: torch.dtype) -> None:
        self.numel, self.dtype = numel, dtype
        self.order: deque[Hashable] = deque()
        self.posted: defaultdict[Hashable, deque[_Posted]] = defaultdict(deque)
        self._communicator, self._source = communicator, source

    def post_until(self, name: Hashable) -> None:
        """Takes what comes up to and with the first message of that name."""
        while not self.posted[name]:
            flat = torch.empty(self.numel, dtype=self.dtype, device=self._communicator.device)
            work = self._communicator.receive(flat, self._source)
            self.posted[self.order.popleft()].append(_Posted(work, flat))


class NativeSender:
    def __init__(self, communicator: Communicator, target: int) -> None:
        self._communicator, self._target = communicator, target
        self._pending: deque[_Posted] = deque()

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        while self._pending and self._pending[0].work.is_completed():
            self._pending.popleft()
        flat = pack(pieces)
        self._pending.append(_Posted(self._communicator.send(flat, self._target), flat))

    def drain(self) -> None:
        while self._pending:
            self._pending.popleft().work.wait()


class NativeReceiver:
    def __init__(self, row: _Row, name: Hashable, waits: Waits) -> None:
        self._row, self._name, self._waits = row, name, waits

    def post(self) -> None:
        """A chip's memory is taken no earlier than its message is of use."""

    def expect(self) -> None:
        self._row.post_until(self._name)

    def receive_pieces(self, destinations: Sequence[Destination]) -> list[torch.Tensor]:
        self.expect()
        work, flat = self._row.posted[self._name].popleft()
        watch = self._waits.start()
        work.wait()
        watch.stop()
        self._waits.book([watch])
        return unpack(flat, destinations)
