"""Messages of known size from rank to rank: pieces of tensors, packed end to end.

`bridge_messages.py` has them between pools, `native_messages.py` inside one, from chip to chip; `rounds.py` has many
at once, inside a pool. Senders never block compute while there is room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

import torch

from backends.backend import Backend
from bridge.layout.reshard import Piece
from bridge.rank import RankId
from hetero.transfer.waits import Waits


class Sender(Protocol):
    """One end of a one-way row of messages."""

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        """Does not wait while there is room. The pieces may be let go of; until `drain` they must not be written to."""

    def drain(self) -> None:
        """Waits until everything sent has arrived."""


class Destination(NamedTuple):
    """Where a piece of a message goes: into `tensor`, or into a new one of that shape. `fresh` tensors are those that a
    backend has made for landing, and no work knows of yet."""

    shape: tuple[int, ...]
    tensor: torch.Tensor | None = None
    fresh: bool = False


class Receiver(Protocol):
    """The other end."""

    def post(self) -> None:
        """One message more will come. The bridge takes it as soon as it does, into memory that it has for it."""

    def expect(self) -> None:
        """The next one is of use soon: a chip of the pool begins to take it."""

    def receive_pieces(self, destinations: Sequence[Destination]) -> list[torch.Tensor]:
        """Waits for the oldest message that was posted for, and puts its pieces where they go, end to end. Work given
        to the chip from here on sees them."""


@dataclass(frozen=True)
class MessageSpec:
    """What one rank sends to another in one turn: pieces of the flow's tensors, by their number."""

    source: RankId
    target: RankId
    pieces: tuple[tuple[int, Piece], ...]

    @property
    def numel(self) -> int:
        return sum(piece.numel for _, piece in self.pieces)


def message_specs(ways: Sequence[Sequence[Piece]]) -> list[MessageSpec]:
    """Groups the pieces of several tensors by pair of ranks. Both ends derive the same order."""
    pairs: dict[tuple[RankId, RankId], list[tuple[int, Piece]]] = {}
    for number, pieces in enumerate(ways):
        for piece in pieces:
            pairs.setdefault((piece.source, piece.target), []).append((number, piece))
    return [MessageSpec(source, target, tuple(rows)) for (source, target), rows in pairs.items()]


class Messenger(Protocol):
    """Makes one rank's ends of messages that are sent again and again. `window` of them may be under way.
    `PointToPoint` is one, and so is a `Round`."""

    me: RankId
    backend: Backend
    waits: Waits

    def sender(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Sender: ...

    def receiver(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Receiver: ...


def pack(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pieces end to end; one alone is not copied where it lies in one row."""
    return pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])


def unpack(flat: torch.Tensor, destinations: Sequence[Destination]) -> list[torch.Tensor]:
    """The pieces of a message that has memory of its own on the chip: parts of it, where no tensor is named."""
    found = []
    parts = flat.split([prod(destination.shape) for destination in destinations])
    for part, destination in zip(parts, destinations, strict=True):
        piece = part.view(destination.shape)
        found.append(piece if destination.tensor is None else destination.tensor.detach().copy_(piece))
    return found
