"""Many messages at once inside a pool, as one all-to-all of some of its chips.

One collective on one communicator, issued by all of its members in one order, needs no first contacts of pairs, leaves
no receive waiting beside compute, and lets each chip's links work in both directions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from backends.communicator import Communicator, Work
from bridge.rank import RankId
from hetero.transfer.messages import Destination, MessageSpec, Receiver, Sender, pack, unpack
from hetero.transfer.point_to_point import PointToPoint


class Round:
    """One all-to-all in each turn. Flows get their ends here as from `PointToPoint`; they send, then somebody calls
    `issue`, then they receive. `communicator` is None where there is nobody to send anything to."""

    def __init__(self, messenger: PointToPoint, communicator: Communicator | None, dtype: torch.dtype) -> None:
        self.me, self.backend, self.waits = messenger.me, messenger.backend, messenger.waits
        self._communicator, self._dtype = communicator, dtype
        self._out: defaultdict[int, list[_RoundSender]] = defaultdict(list)
        self._in_numel: defaultdict[int, int] = defaultdict(int)
        self._inward: dict[int, torch.Tensor] = {}
        self._work: tuple[Work, torch.Tensor] | None = None

    def sender(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Sender:
        end = _RoundSender()
        self._out[message.target.index].append(end)
        return end

    def receiver(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Receiver:
        start = self._in_numel[message.source.index]
        self._in_numel[message.source.index] += message.numel
        return _RoundReceiver(self, message.source, slice(start, start + message.numel))

    def issue(self) -> None:
        """Every member calls this once in a turn, its rounds in one order, when it has sent all that is its own."""
        if self._communicator is None:
            return
        members = self._communicator.members
        parts = [[piece for end in self._out[member] for piece in end.take()] for member in members]
        out_sizes = [sum(piece.numel() for piece in pieces) for pieces in parts]
        in_sizes = [self._in_numel[member] for member in members]
        pieces = [piece for found in parts for piece in found]
        outward = pack(pieces) if pieces else self._empty(0)
        inward = self._empty(sum(in_sizes))
        self._inward = dict(zip(members, inward.split(in_sizes), strict=True))
        self._work = self._communicator.all_to_all(inward, in_sizes, outward, out_sizes), outward

    def part(self, source: int, where: slice) -> torch.Tensor:
        """What has come from a member. Waits for all of the round, once."""
        self.finish()
        return self._inward[source][where]

    def finish(self) -> None:
        if self._work is not None:
            watch = self.waits.start()
            self._work[0].wait()
            watch.stop()
            self.waits.book([watch])
            self._work = None

    def clear(self) -> None:
        """The turn's messages have been taken."""
        self.finish()
        self._inward = {}

    def _empty(self, numel: int) -> torch.Tensor:
        return torch.empty(numel, dtype=self._dtype, device=self.backend.device)


class _RoundSender:
    """What one flow sends to one member. Nothing is copied before the round is issued, which packs all of it once."""

    def __init__(self) -> None:
        self._pieces: Sequence[torch.Tensor] | None = None

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        self._pieces = pieces

    def take(self) -> Sequence[torch.Tensor]:
        assert self._pieces is not None, "a round was issued before all was sent"
        pieces, self._pieces = self._pieces, None
        return pieces

    def drain(self) -> None: ...


class _RoundReceiver:
    def __init__(self, round_: Round, source: RankId, where: slice) -> None:
        self._round, self._source, self._where = round_, source, where

    def post(self) -> None: ...

    def expect(self) -> None: ...

    def receive_pieces(self, destinations: Sequence[Destination]) -> list[torch.Tensor]:
        return unpack(self._round.part(self._source.index, self._where), destinations)
