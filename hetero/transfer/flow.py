"""Tensors that move along planned pieces, again and again: one packed message per pair of ranks and turn.

The pieces come from the reshard planner; a flow only packs, carries and unpacks them. It knows nothing of what they are
for: activations, gradients, sync and parameters all travel in flows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends.communicator import Communicator
from bridge.layout.layout import LayoutError, Region
from bridge.layout.reshard import Gather, Piece, Reshard
from hetero.transfer.messages import Destination, MessageSpec, Messenger, Receiver, Sender, message_specs


class Flow:
    """A row of turns. In each, every source rank calls `send_tensors` once and every target rank `receive_tensors`
    once, in order.

    `reshards[i]` is the way of tensor i; `shapes[i]` the local shape of its target here, None where this rank is none.
    `window` turns may be under way before a sender waits for a slot. A turn must be announced by `begin`.
    """

    def __init__(
        self,
        messenger: Messenger,
        purpose: str,
        name: str,
        reshards: Sequence[Reshard],
        shapes: Sequence[tuple[int, ...] | None],
        dtype: torch.dtype,
        window: int,
        gather_group: Communicator | None = None,
    ) -> None:
        me = messenger.me
        self.dtype, self._shapes, self._window = dtype, shapes, window
        self._backend, self._waits, self._gather_group = messenger.backend, messenger.waits, gather_group
        mine = [next((gather for gather in way.gathers if me in gather.ranks), None) for way in reshards]
        self._gathers = [_in_group_order(gather, gather_group) if gather else None for gather in mine]
        self._local: list[tuple[int, Piece]] = []
        self._out: list[tuple[MessageSpec, Sender]] = []
        self._in: list[tuple[MessageSpec, Receiver]] = []
        for message in message_specs([way.pieces for way in reshards]):
            if message.source == message.target == me:
                self._local = list(message.pieces)
            elif message.source == me:
                self._out.append((message, messenger.sender(message, purpose, name, dtype, window)))
            elif message.target == me:
                self._in.append((message, messenger.receiver(message, purpose, name, dtype, window)))
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

    def send_tensors(self, tensors: Sequence[torch.Tensor | None]) -> None:
        """Hands over this rank's sources (None where it holds none). Does not wait while a slot is free."""
        for message, sender in self._out:
            sender.send_pieces(
                [_cut(_source(tensors, number), piece.source_slices) for number, piece in message.pieces]
            )
        if self._local:
            self._kept.append(tensors)

    def receive_tensors(self, into: Sequence[torch.Tensor | None] | None = None) -> list[torch.Tensor | None]:
        """Waits for a turn and unpacks it into new tensors or `into`, frees its slots and posts the next one.

        Time spent waiting, for messages or for the group to gather, is booked as such.
        """
        targets: list[torch.Tensor | None] = list(into) if into is not None else [None] * len(self._shapes)
        for message, receiver in self._in:
            found = receiver.receive_pieces(
                [self._destination(targets, *piece, fresh=into is None) for piece in message.pieces]
            )
            for (number, _), tensor in zip(message.pieces, found, strict=True):
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

    def _destination(self, targets: list[torch.Tensor | None], number: int, piece: Piece, fresh: bool) -> Destination:
        """A piece that is the whole of a new tensor may be one as it comes."""
        if fresh and piece.shape == self._shapes[number]:
            return Destination(piece.shape)
        return Destination(piece.shape, _cut(self._target(targets, number), piece.target_slices), fresh)

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


def _in_group_order(gather: Gather, group: Communicator | None) -> Gather:
    """A group's members go by their index, whatever order a plan gives its chips. Raises LayoutError where others than
    the group's members are to gather."""
    pairs = sorted(zip(gather.ranks, gather.parts, strict=True), key=lambda pair: pair[0].index)
    if group is None or tuple(rank.index for rank, _ in pairs) != group.members:
        rule = "replicas of a part gather it over a group of their own"
        remedy = "give the flow that group, or plan it by `copies`"
        raise LayoutError("ranks", [str(rank) for rank, _ in pairs], rule, remedy)
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
