"""How fast the angles of rotary positions grow, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rotary:
    """Angles of the first `dim` elements of a head, in radians for each position: one for a pair of elements.

    Pairs are i and i + dim / 2 or, where they are `interleaved`, 2i and 2i + 1. `factor` multiplies sine and cosine.
    Documents longer than `long_from` have the frequencies `long` in place of the others.
    """

    frequencies: tuple[float, ...]
    factor: float = 1.0
    interleaved: bool = False
    long: tuple[float, ...] = ()
    long_from: int | None = None

    @classmethod
    def plain(cls, theta: float, dim: int, interleaved: bool = False) -> Rotary:
        return cls(plain_frequencies(theta, dim), interleaved=interleaved)

    @property
    def dim(self) -> int:
        """How many elements turn."""
        return 2 * len(self.frequencies)

    def of_length(self, length: int) -> tuple[float, ...]:
        """The frequencies in samples of so many positions."""
        return self.frequencies if self.long_from is None or length <= self.long_from else self.long


def plain_frequencies(theta: float, dim: int) -> tuple[float, ...]:
    """theta^(-2i / dim)."""
    return tuple(theta ** -(even / dim) for even in range(0, dim, 2))
