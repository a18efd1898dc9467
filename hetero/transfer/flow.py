"""Tensors that move along planned pieces, again and again: one packed message per pair of ranks and turn.

Activations, gradients, sync and parameters all travel in flows. The pieces come from the reshard planner; a flow only
packs, carries and unpacks them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from backends.backend import Backend
from backends.communicator import Communicator
from bridge.codec import CODECS, NONE, Codec
from bridge.layout.layout import Region
from bridge.layout.reshard import Gather, Piece, Reshard
from bridge.options import BridgeOptions
from bridge.port.port import Channel, Port
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from hetero.transfer.bridged import BridgeReceiver, BridgeSender, PlainReader, PlainWriter, Reader, Writer
from hetero.transfer.carrier import Place, Receiver, Sender, Waits
from hetero.transfer.channels import Channels
from hetero.transfer.coded import CodedReader, CodedWriter, dtype_name
from hetero.transfer.gate import Gate
from hetero.transfer.lines import Lines


@dataclass(frozen=True)
class Lane:
    """What one rank sends to another in one turn: pieces of the flow's tensors, by their number."""

    source: RankId
    target: RankId
    pieces: tuple[tuple[int, Piece], ...]

    @property
    def numel(self) -> int:
        return sum(piece.numel for _, piece in self.pieces)


def lanes(plans: Sequence[Sequence[Piece]]) -> list[Lane]:
    """Groups the pieces of several tensors by pair of ranks. Both ends derive the same order."""
    pairs: dict[tuple[RankId, RankId], list[tuple[int, Piece]]] = {}
    for number, pieces in enumerate(plans):
        for piece in pieces:
            pairs.setdefault((piece.source, piece.target), []).append((number, piece))
    return [Lane(source, target, tuple(rows)) for (source, target), rows in pairs.items()]


class Ends(Protocol):
    """Makes the two ends of lanes for one rank."""

    me: RankId
    backend: Backend
    waits: Waits

    def sender(self, lane: Lane, purpose: str, name: str, dtype: torch.dtype, window: int) -> Sender: ...

    def receiver(self, lane: Lane, purpose: str, name: str, dtype: torch.dtype, window: int) -> Receiver: ...


@dataclass
class Carriers:
    """The ends of one rank and epoch: lines inside the pool, the bridge between pools."""

    me: RankId
    epoch: int
    backend: Backend
    port: Port
    lines: Lines
    waits: Waits
    options: BridgeOptions
    tell: Callable[[str, dict[str, Any]], None]
    """Hears what the run's journal should know, by kind."""

    def __post_init__(self) -> None:
        self._channels = Channels(self.backend, self.port)

    def close(self) -> None:
        """See Channels.close."""
        self._channels.close()

    def sender(self, lane: Lane, purpose: str, name: str, dtype: torch.dtype, window: int) -> Sender:
        if lane.source.pool == lane.target.pool:
            return self.lines.sender(lane.target.index)
        codec = self._codec(lane, purpose, dtype)
        channel = self._open(lane, purpose, name, dtype, window, codec)
        return BridgeSender(channel, self._writer(channel, lane, dtype, codec), self._channels.outward, self.waits)

    def receiver(self, lane: Lane, purpose: str, name: str, dtype: torch.dtype, window: int) -> Receiver:
        if lane.source.pool == lane.target.pool:
            return self.lines.receiver(lane.source.index, (purpose, name), lane.numel, dtype)
        codec = self._codec(lane, purpose, dtype)
        channel = self._open(lane, purpose, name, dtype, window, codec)
        reader: Reader = (
            PlainReader(channel, self.backend, dtype)
            if codec is NONE
            else CodedReader(channel, self.backend, dtype, lane.numel, codec)
        )
        return BridgeReceiver(channel, reader, self.backend, self._channels.inward, self.waits)

    def _writer(self, channel: Channel, lane: Lane, dtype: torch.dtype, codec: Codec) -> Writer:
        if codec is NONE:
            return PlainWriter(channel, self.backend, dtype)
        gate = Gate(codec, dtype_name(dtype), partial(self._tell_of_fallback, channel.spec))
        return CodedWriter(channel, self.backend, dtype, lane.numel, gate)

    def _codec(self, lane: Lane, purpose: str, dtype: torch.dtype) -> Codec:
        """What the job file says of the link and direction; none where that saves nothing."""
        said = self.options.codec_between(lane.source.pool, lane.target.pool)
        codec = CODECS[{"activation": said.activation, "gradient": said.gradient}.get(purpose, NONE.name)]
        return NONE if codec is NONE or codec.estimate_ratio(dtype_name(dtype)) == 1 else codec

    def _tell_of_fallback(self, channel: ChannelSpec, data: dict[str, Any]) -> None:
        where = {"link": [channel.source.pool, channel.target.pool], "target": str(channel.target)}
        self.tell("codec_fallback", {**where, "purpose": channel.purpose, "flow": channel.name, **data})

    def _open(self, lane: Lane, purpose: str, name: str, dtype: torch.dtype, window: int, codec: Codec) -> Channel:
        plain = lane.numel * dtype.itemsize
        nbytes = plain if codec is NONE else codec.slot_bytes(lane.numel, dtype_name(dtype))
        return self._channels.open(ChannelSpec(self.epoch, purpose, name, lane.source, lane.target, nbytes, window))


class Flow:
    """A row of turns. In each, every source rank calls `send` once and every target rank `receive` once, in order.

    `plans[i]` moves tensor i; `shapes[i]` is the local shape of its target here, None where this rank is no target.
    `window` turns may be under way before a sender waits for a slot. A turn must be announced by `begin`.
    """

    def __init__(
        self,
        carriers: Ends,
        purpose: str,
        name: str,
        plans: Sequence[Reshard],
        shapes: Sequence[tuple[int, ...] | None],
        dtype: torch.dtype,
        window: int,
        gather_group: Communicator | None = None,
    ) -> None:
        me = carriers.me
        self.dtype, self._shapes, self._window = dtype, shapes, window
        self._backend, self._waits, self._gather_group = carriers.backend, carriers.waits, gather_group
        mine = [next((gather for gather in plan.gathers if me in gather.ranks), None) for plan in plans]
        self._gathers = [_in_group_order(gather) if gather else None for gather in mine]
        self._local: list[tuple[int, Piece]] = []
        self._out: list[tuple[Lane, Sender]] = []
        self._in: list[tuple[Lane, Receiver]] = []
        for lane in lanes([plan.pieces for plan in plans]):
            if lane.source == lane.target == me:
                self._local = list(lane.pieces)
            elif lane.source == me:
                self._out.append((lane, carriers.sender(lane, purpose, name, dtype, window)))
            elif lane.target == me:
                self._in.append((lane, carriers.receiver(lane, purpose, name, dtype, window)))
        self._kept: list[Sequence[torch.Tensor | None]] = []
        self._to_post = 0

    def begin(self, turns: int) -> None:
        """Announces `turns` messages and posts receives for as many of them as the window allows."""
        for _ in range(min(turns, self._window)):
            self._post()
        self._to_post = max(0, turns - self._window)

    def expect(self) -> None:
        """The next turn is of use soon."""
        for _, receiver in self._in:
            receiver.expect()

    def send(self, tensors: Sequence[torch.Tensor | None]) -> None:
        """Hands over this rank's sources (None where it holds none). Does not wait while a slot is free."""
        for lane, sender in self._out:
            sender.send([_cut(_source(tensors, number), piece.source_slices) for number, piece in lane.pieces])
        if self._local:
            self._kept.append(tensors)

    def receive(self, into: Sequence[torch.Tensor | None] | None = None) -> list[torch.Tensor | None]:
        """Waits for a turn and unpacks it into new tensors or `into`, frees its slots and posts the next one.

        Time spent waiting, for messages or for the group to gather, is booked as such.
        """
        targets: list[torch.Tensor | None] = list(into) if into is not None else [None] * len(self._shapes)
        for lane, receiver in self._in:
            found = receiver.receive([self._place(targets, *piece, fresh=into is None) for piece in lane.pieces])
            for (number, _), tensor in zip(lane.pieces, found, strict=True):
                if targets[number] is None:
                    targets[number] = tensor
        self._take_local(targets, fresh=into is None)
        if self._to_post:
            self._to_post -= 1
            self._post()
        watch = self._waits.start()
        for number, gather in enumerate(self._gathers):
            if gather is not None:
                self._gather(_source(targets, number), gather)
        watch.stop()
        self._waits.book([watch])
        return targets

    def drain(self) -> None:
        """Waits until all that was sent has arrived."""
        for _, sender in self._out:
            sender.drain()

    def _post(self) -> None:
        for _, receiver in self._in:
            receiver.post()

    def _place(self, targets: list[torch.Tensor | None], number: int, piece: Piece, fresh: bool) -> Place:
        """A piece that is the whole of a new tensor may be one as it comes."""
        if fresh and piece.shape == self._shapes[number]:
            return Place(piece.shape)
        return Place(piece.shape, _cut(self._target(targets, number), piece.target_slices), fresh)

    def _take_local(self, targets: list[torch.Tensor | None], fresh: bool) -> None:
        if not self._local:
            return
        sources = self._kept.pop(0)
        for number, piece in self._local:
            part = _cut(_source(sources, number), piece.source_slices)
            if fresh and piece.shape == self._shapes[number]:
                targets[number] = part
            else:
                destination = _cut(self._target(targets, number), piece.target_slices)
                if destination.data_ptr() != part.data_ptr():
                    destination.copy_(part)

    def _target(self, targets: list[torch.Tensor | None], number: int) -> torch.Tensor:
        if targets[number] is None:
            shape = self._shapes[number]
            if shape is None:
                raise ValueError(f"tensor {number} of the flow has no target on this rank")
            targets[number] = self._backend.landing(shape, self.dtype)
        return _source(targets, number)

    def _gather(self, whole: torch.Tensor, gather: Gather) -> None:
        assert self._gather_group is not None
        self._gather_group.all_gather([_cut(whole, region) for region in gather.parts])


def _in_group_order(gather: Gather) -> Gather:
    """A group's members go by their index, whatever order a plan gives its chips."""
    pairs = sorted(zip(gather.ranks, gather.parts, strict=True), key=lambda pair: pair[0].index)
    return Gather(tuple(rank for rank, _ in pairs), tuple(part for _, part in pairs))


def _source(tensors: Sequence[torch.Tensor | None], number: int) -> torch.Tensor:
    tensor = tensors[number]
    if tensor is None:
        raise ValueError(f"tensor {number} of the flow is not on this rank")
    return tensor


def _cut(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    for dim, (start, stop) in enumerate(region):
        if start or stop != tensor.shape[dim]:
            tensor = tensor.narrow(dim, start, stop - start)
    return tensor
