"""Which sequence is the n-th sample of a run: a function of seed and n, whatever the plan.

An epoch's order is a keyed permutation: a balanced Feistel network over the next even number of bits, walked until it
falls within range (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Nothing is stored.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_ROUNDS = 6


class SampleOrder:
    """The order of `n` sequences, each exactly once an epoch, every epoch another order."""

    def __init__(self, seed: int, n: int) -> None:
        if n < 1:
            raise ValueError(f"an order needs at least one sequence, not {n}")
        self.seed, self.n = seed, n
        self._half_bits = max(1, ((n - 1).bit_length() + 1) // 2)

    def index(self, position: int) -> int:
        """The sequence that is sample `position` (0, 1, ...) of the run."""
        epoch, place = divmod(position, self.n)
        key = _mix(_mix(self.seed & _MASK) ^ epoch)
        while (place := self._permute(place, key)) >= self.n:
            pass
        return place

    def _permute(self, place: int, key: int) -> int:
        half = (1 << self._half_bits) - 1
        left, right = place >> self._half_bits, place & half
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix(key ^ (number << 56) ^ right) & half)
        return left << self._half_bits | right


def _mix(x: int) -> int:
    """SplitMix64's output function (Steele et al., OOPSLA 2014): 64 bits to 64 well-mixed bits."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
