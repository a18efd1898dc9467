"""Which sample is the n-th of a run over several sources: a function of seed and n, whatever the plan.

The first source has its turn whenever its share of all turns so far reaches the next whole number; what is left is
shared among the others likewise. So each has its weight's part of any stretch of samples, to within a few, and how
often each had its turn before the n-th needs no counting. Each source is walked in its own order, by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from hetero.data.errors import DataError
from hetero.data.split import HeldOut, Samples, Training, check_split


class Turns:
    """Whose turn it is, by weight."""

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(str(weight)) for weight in weights]
        left = list(accumulate(reversed(exact)))[::-1]
        self._shares = [weight / rest for weight, rest in zip(exact, left, strict=True)]

    def at(self, position: int) -> tuple[int, int]:
        """The source whose turn number `position` (0, 1, ...) is, and how many turns it had before."""
        for source, share in enumerate(self._shares):
            before = int(position * share)
            if int((position + 1) * share) > before:
                return source, before
            position -= before
        raise AssertionError("the last source takes all that is left")

    def counts(self, n: int) -> list[int]:
        """How many of the first n turns each source has."""
        found = []
        for share in self._shares:
            found.append(int(n * share))
            n -= found[-1]
        return found


class _Mixed:
    """By turns, from the order of each source."""

    def __init__(self, turns: Turns, sizes: Sequence[int], orders: Sequence[Samples]) -> None:
        self._turns, self._orders = turns, orders
        self._firsts = [0, *accumulate(sizes)]

    def index(self, position: int) -> int:
        source, number = self._turns.at(position)
        return self._firsts[source] + self._orders[source].index(number)


class MixedTraining(_Mixed):
    """All samples but those held out, each source again and again in the order of `seed`."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, held_out: int) -> None:
        turns = Turns(weights)
        counts = zip(sizes, turns.counts(held_out), strict=True)
        super().__init__(turns, sizes, [Training(seed, *count) for count in counts])


class MixedHeldOut(_Mixed):
    """The `held_out` samples that are set apart, of each source by its weight."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], held_out: int) -> None:
        turns = Turns(weights)
        counts = zip(sizes, turns.counts(held_out), strict=True)
        super().__init__(turns, sizes, [HeldOut(*count) for count in counts])


def check_splits(sizes: Sequence[int], weights: Sequence[float], global_batch: int, batches: int) -> None:
    """Raises DataError unless something of each source is left to train on."""
    if len(sizes) == 1:
        return check_split(sizes[0], global_batch, batches)
    for number, (size, held_out) in enumerate(zip(sizes, Turns(weights).counts(batches * global_batch), strict=True)):
        if held_out >= size:
            rule = f"{held_out} sequences of data.source[{number}] are held out, and it has {size} in all"
            raise DataError("eval.batches", batches, rule, "hold out fewer, give it less weight, or more text")
    return None
