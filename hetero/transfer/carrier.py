"""What carries messages of known size from rank to rank. `bridged.py` does so between pools; inside a pool `lines.py`
does for stages, `rounds.py` for what pipelines share.

A message is a row of tensor pieces, packed end to end. Senders never block compute while there is room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

import torch

from backends.backend import Backend, Stopwatch


@dataclass
class Crossed:
    """One direction of a link, as one rank sees it: what crossed it, and how long the rank stood still for that."""

    nbytes: int = 0
    waited_s: float = 0.0


class Waits:
    """Seconds a rank's chip stood still since the last reading: for a link, and for somebody's work. `sent` and
    `received` say what crossed the bridge, by the pool at the other end.

    The chip may still compute while its rank waits, so waits are timed by its own stopwatches, which are read at last.
    """

    def __init__(self, backend: Backend) -> None:
        self.start = backend.start
        self._booked: list[tuple[Sequence[Stopwatch], float, Crossed | None]] = []
        self.clear()

    def clear(self) -> None:
        self.link_s = self.work_s = 0.0
        self.sent: defaultdict[str, Crossed] = defaultdict(Crossed)
        self.received: defaultdict[str, Crossed] = defaultdict(Crossed)
        self._booked.clear()

    def book(self, watches: Sequence[Stopwatch], transfer_s: float = 0.0, crossed: Crossed | None = None) -> None:
        """Waits for one message, timed and over. The part of them during which it was on its way is the link's fault;
        the rest is its sender's."""
        self._booked.append((watches, transfer_s, crossed))

    def settle(self) -> None:
        """Adds up what was booked."""
        for watches, transfer_s, crossed in self._booked:
            seconds = sum(watch.seconds() for watch in watches)
            link_s = min(seconds, transfer_s)
            self.link_s += link_s
            self.work_s += seconds - link_s
            if crossed is not None:
                crossed.waited_s += link_s
        self._booked.clear()


class Sender(Protocol):
    """One end of a one-way row of messages."""

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        """Does not wait while there is room. The pieces may be let go of; until `drain` they must not be written to."""

    def drain(self) -> None:
        """Waits until everything sent has arrived."""


class Place(NamedTuple):
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

    def receive(self, places: Sequence[Place]) -> list[torch.Tensor]:
        """Waits for the oldest message that was posted for, and puts its pieces in their places, end to end. Work given
        to the chip from here on sees them."""


def pack(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pieces end to end; one alone is not copied where it lies in one row."""
    return pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])


def unpack(flat: torch.Tensor, places: Sequence[Place]) -> list[torch.Tensor]:
    """The pieces of a message that has memory of its own on the chip: parts of it, where no tensor is named."""
    found = []
    parts = flat.split([prod(place.shape) for place in places])
    for part, place in zip(parts, places, strict=True):
        piece = part.view(place.shape)
        found.append(piece if place.tensor is None else place.tensor.detach().copy_(piece))
    return found
