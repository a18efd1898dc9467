"""Tensors that go from rank to rank once, all at the same time, each pair of ranks over a channel of its own.

Inside a pool as between pools it is the bridge that carries them: a plan's own groups may not be there any more, or not
yet, and messages over the bridge need nobody's schedule. They are cut to a size that bounds what is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from backends.backend import Backend
from bridge.errors import BridgeTimeout
from bridge.port.port import Channel, Port
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from hetero.transfer.bridge_messages import BridgeReceiver, BridgeSender
from hetero.transfer.channels import Channels
from hetero.transfer.coded import dtype_name
from hetero.transfer.messages import Destination
from hetero.transfer.slot_io import PlainReader, PlainWriter, cut
from hetero.transfer.waits import WAIT_S, Waits

MOST_BYTES, LEAST_BYTES = 16 << 20, 1 << 20
"""Of a message."""
SLOTS = 3
"""Of a channel: one is filled, one is under way, one waits to be told of."""
ROOM_BYTES = 256 << 20
"""For all slots of a rank, unless it talks with so many others that the least messages take more."""

Views = Sequence[torch.Tensor]
"""Parts of tensors in one order at both ends. The receiver's type is the message's."""


class Pair(NamedTuple):
    """What goes to, or comes from, another rank as one type."""

    other: RankId
    dtype: torch.dtype


def message_bytes(channels: int) -> int:
    """Of the longest message where no rank has more than so many channels; both ends must come to the same."""
    return max(LEAST_BYTES, min(MOST_BYTES, ROOM_BYTES // (SLOTS * max(1, channels))))


class Movement:
    """A rank's part in moving tensors, over channels of `epoch` that are open until `close`. What crosses the bridge is
    booked with `waits`."""

    def __init__(
        self,
        me: RankId,
        epoch: int,
        backend: Backend,
        port: Port,
        purpose: str = "state",
        waits: Waits | None = None,
    ) -> None:
        self._me, self._epoch, self._backend, self._port = me, epoch, backend, port
        self._purpose, self._waits = purpose, waits or Waits(backend)
        self._channels = Channels(backend, port, f"{purpose}-")
        self._opened: list[Channel] = []

    @property
    def sent_bytes(self) -> dict[str, int]:
        """So far, by the pool at the other end."""
        return {pool: crossed.nbytes for pool, crossed in self._waits.sent.items()}

    def run(self, name: str, out: Mapping[Pair, Views], into: Mapping[Pair, Views], most_bytes: int) -> None:
        """Returns when all has come and gone. `name` is of this call alone. Raises what the bridge does: PeerLost if
        one of the others has gone."""
        senders = [self._sender(name, pair, views, most_bytes) for pair, views in out.items()]
        receivers = [self._receiver(name, pair, views, most_bytes) for pair, views in into.items()]
        ends: list[_Out | _In] = [*senders, *receivers]
        while any(end.left for end in ends):
            self._port.poll()
            busy = [end.advance() for end in ends]
            if not any(busy) and not self._port.wait(lambda: any(end.ready for end in ends), WAIT_S):
                waiting = ", ".join(str(end.spec) for end in ends if end.left)
                rule = f"no part of it moved within {WAIT_S:g} s"
                raise BridgeTimeout(self._purpose, waiting, rule, "look whether those ranks are alive")
        for end in senders:
            end.drain()

    def close(self) -> None:
        """Once nothing is under way any more: gives back the memory that carried it."""
        self._channels.close()
        for channel in self._opened:
            self._port.close_channel(channel)
        self._opened.clear()

    def _sender(self, name: str, pair: Pair, views: Views, most_bytes: int) -> _Out:
        channel = self._open(name, pair, views, most_bytes, (self._me, pair.other))
        writer = PlainWriter(channel, self._backend, pair.dtype)
        sender = BridgeSender(channel, writer, self._channels.outward, self._waits)
        return _Out(channel.spec, sender, pair.dtype, list(_messages(views, pair.dtype, most_bytes)))

    def _receiver(self, name: str, pair: Pair, views: Views, most_bytes: int) -> _In:
        channel = self._open(name, pair, views, most_bytes, (pair.other, self._me))
        reader = PlainReader(channel, self._backend, pair.dtype)
        receiver = BridgeReceiver(channel, reader, self._backend, self._channels.inward, self._waits)
        return _In(channel.spec, receiver, list(_messages(views, pair.dtype, most_bytes)))

    def _open(self, name: str, pair: Pair, views: Views, most_bytes: int, ends: tuple[RankId, RankId]) -> Channel:
        nbytes = min(most_bytes, sum(view.numel() for view in views) * pair.dtype.itemsize)
        flow = f"{name} {dtype_name(pair.dtype)}"
        spec = ChannelSpec(self._epoch, self._purpose, flow, *ends, nbytes, SLOTS)
        self._opened.append(self._channels.open(spec))
        return self._opened[-1]


class _Out:
    """Sends message after message, as slots come free."""

    def __init__(self, spec: ChannelSpec, sender: BridgeSender, dtype: torch.dtype, messages: list[Views]) -> None:
        self.spec, self.left, self._sender, self._dtype = spec, messages[::-1], sender, dtype
        self.drain = sender.drain

    @property
    def ready(self) -> bool:
        return bool(self.left) and self._sender.has_room

    def advance(self) -> bool:
        """Whether there was something to do."""
        if not self.ready:
            return False
        self._sender.send_pieces([view.to(self._dtype) for view in self.left.pop()])
        return True


class _In:
    """Receives message after message."""

    def __init__(self, spec: ChannelSpec, receiver: BridgeReceiver, messages: list[Views]) -> None:
        self.spec, self.left, self._receiver = spec, messages[::-1], receiver
        self._to_post = len(messages)
        for _ in range(min(SLOTS, len(messages))):
            self._post()

    @property
    def ready(self) -> bool:
        return bool(self.left) and self._receiver.has_come

    def advance(self) -> bool:
        """Whether there was something to do."""
        if not self.ready:
            return False
        self._receiver.receive_pieces([Destination(tuple(view.shape), view) for view in self.left.pop()])
        if self._to_post:
            self._post()
        return True

    def _post(self) -> None:
        self._receiver.post()
        self._to_post -= 1


def _messages(views: Views, dtype: torch.dtype, most_bytes: int) -> Iterator[Views]:
    """Parts of the views, in their order, as many as fit into a message of the type."""
    message: list[torch.Tensor] = []
    filled = 0
    for view in views:
        for part in cut(view, most_bytes // dtype.itemsize * view.itemsize):
            nbytes = part.numel() * dtype.itemsize
            if message and filled + nbytes > most_bytes:
                yield message
                message, filled = [], 0
            message.append(part)
            filled += nbytes
    if message:
        yield message
