"""What one action took, again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean

import numpy as np

from backends.backend import Stopwatch

_ONE_SPREAD = 0.16, 0.84
"""Between these parts of a normal distribution lie two of its standard deviations."""


@dataclass(frozen=True)
class Repeats:
    """Seconds of each; at least one."""

    seconds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The mean of the middle half, of three the middle one: nearly as sharp as the mean of all, and nothing that
        came between counts."""
        cut = (len(self.seconds) + 1) // 4
        return mean(sorted(self.seconds)[cut : len(self.seconds) - cut])

    @property
    def deviations(self) -> list[float]:
        """From the middle, as fractions of it: as wide as from the true one, which the middle of a few is not."""
        if self.middle <= 0:
            return []
        count = len(self.seconds)
        wider = sqrt(count / max(1, count - 1))
        return [wider * (seconds / self.middle - 1) for seconds in self.seconds]


def spread(actions: Sequence[Repeats]) -> float:
    """How much repeats of the same differ, as a fraction: one standard deviation, if they are normal, however few."""
    deviations = [deviation for action in actions for deviation in action.deviations]
    low, high = np.quantile(deviations, _ONE_SPREAD, method="normal_unbiased") if deviations else (0.0, 0.0)
    return float(high - low) / 2


def repeat(once: Callable[[], Sequence[Stopwatch]], count: int) -> list[Repeats] | None:
    """Of each action of `once`, which is done once more before it counts. Where one took longer than an emulated chip
    would have, that time does not count; None where that was so for most."""
    passes = [once() for _ in range(count + 1)][1:]
    kept = [watches for watches in passes if not any(watch.overrun for watch in watches)]
    if 2 * len(kept) <= len(passes):
        return None
    return [Repeats(tuple(watch.seconds() for watch in action)) for action in zip(*kept, strict=True)]
