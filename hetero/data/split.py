"""Which sequences a run trains on, and which are held out to validate it.

The sequences are put into an order of their own, the same for every run over the same text, and its tail is set apart.
So what is held out comes from all over the text, depends on no seed and no plan, and more batches hold out the same
sequences and more. Without a tail, training goes over all sequences in the seeded order alone.
"""

from __future__ import annotations

from typing import Protocol

from hetero.data.errors import DataError
from hetero.data.order import SampleOrder

_SPLIT_SEED = 0x5EED


class Samples(Protocol):
    def index(self, position: int) -> int:
        """The sequence that is sample `position` (0, 1, ...)."""


class HeldOut:
    """The `count` sequences of the tail, always in the same order."""

    def __init__(self, n: int, count: int) -> None:
        self._order, self._first, self._count = SampleOrder(_SPLIT_SEED, n), n - count, count

    def index(self, position: int) -> int:
        if not 0 <= position < self._count:
            raise IndexError(f"held-out sample {position} of {self._count}")
        return self._order.index(self._first + position)


class Training:
    """All sequences but `count` of the tail, each once an epoch, in the order of `seed`."""

    def __init__(self, seed: int, n: int, count: int) -> None:
        self._order = SampleOrder(seed, n - count)
        self._split = SampleOrder(_SPLIT_SEED, n) if count else None

    def index(self, position: int) -> int:
        place = self._order.index(position)
        return self._split.index(place) if self._split else place


def check_split(n: int, global_batch: int, batches: int) -> None:
    """Raises DataError unless something is left to train on."""
    if batches * global_batch >= n:
        rule = f"{batches} batches of {global_batch} sequences are held out, and the text has {n} in all"
        most = (n - 1) // global_batch
        remedy = f"use {most} or less" if most else "use a smaller train.global_batch or more text"
        raise DataError("eval.batches", batches, rule, remedy)
