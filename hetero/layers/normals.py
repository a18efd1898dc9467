"""Standard normals from counters, with the same bits on every chip.

Bits are SplitMix64's (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). The transform
is Box-Muller, whose logarithm, root, sine and cosine are made here of sums and products of float32, one at a time. IEEE
754 rounds those alike everywhere, while quotients, roots and fused products are as each chip likes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def wrapped(word: int) -> int:
    """The int64 with the last 64 bits of a whole number."""
    return (word + 2**63) % 2**64 - 2**63


def _float32s(*values: float) -> tuple[float, ...]:
    return tuple(torch.tensor(values, dtype=torch.float32).tolist())


STEP = wrapped(0x9E3779B97F4A7C15)
"""Between the states of SplitMix64; state n of a sequence is its seed + n * STEP, mod 2^64, counted from 1."""
_FACTORS = wrapped(0xBF58476D1CE4E5B9), wrapped(0x94D049BB133111EB)

# Highest power first. The largest error of each is below 1e-5, relative, and as small as it can be.
_LOGARITHM = _float32s(0.146623701, -0.221687302, 0.253591597, -0.332482725, 0.49991405, -1.00000548)
"""-ln(1 + x) / x, for sqrt(1/2) <= 1 + x < sqrt(2)."""
_SINE = _float32s(0.00815163553, -0.166624799, 0.999998569)
"""sin(x) / x in x * x, for |x| <= pi/4."""
_COSINE = _float32s(0.0403985344, -0.499708146, 0.999990046)
"""cos(x) in x * x, for |x| <= pi/4."""
_LN2, _QUARTER_TURN = _float32s(math.log(2), math.pi / 2)

_FRACTION, _FRACTION_BITS = 0x7FFFFF, 23
_ONE = 0x3F800000
"""The bits of 1.0: with those of a fraction, a number from 1 to 2."""
_ROOT_HALF = 0x3F3504F3
_INVERSE_ROOT = 0x5F3759DF
"""Less half the bits of a number: about those of one over its root."""
_SIGN = -(2**31)


class Normals:
    """Makes up to `most` pairs of normals at a time on `device`, in memory of its own: 36 bytes for each pair."""

    def __init__(self, most: int, device: torch.device) -> None:
        self._words = torch.empty((2, most), dtype=torch.int64, device=device)
        self._floats = torch.empty((5, most), dtype=torch.float32, device=device)

    def make(self, rows: torch.Tensor, columns: torch.Tensor, std: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Two normals of this deviation for each state rows_R + columns_C, both (R, C), valid until the next call."""
        shape = len(rows), len(columns)
        count = shape[0] * shape[1]
        word, spare = self._words[:, :count]
        torch.add(rows[:, None], columns, out=word.view(shape))
        mix(word, spare)
        first, second = box_muller(word, spare, self._floats[:, :count], *_float32s(std))
        return first.view(shape), second.view(shape)


def mix(word: torch.Tensor, spare: torch.Tensor) -> None:
    """SplitMix64's outputs in place of its states."""
    _xor_shifted(word, 30, spare).mul_(_FACTORS[0])
    _xor_shifted(word, 27, spare).mul_(_FACTORS[1])
    _xor_shifted(word, 31, spare)


def _xor_shifted(word: torch.Tensor, by: int, spare: torch.Tensor) -> torch.Tensor:
    torch.bitwise_right_shift(word, by, out=spare)  # fills up with the sign, which is not wanted
    return word.bitwise_xor_(spare.bitwise_and_((1 << 64 - by) - 1))


def box_muller(
    word: torch.Tensor, spare: torch.Tensor, floats: torch.Tensor, std: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each word 23 bits are a radius and 23 an angle, from -pi/4 to pi/4. Sum and difference of its sine and cosine,
    each with a bit for its sign, go all the way round."""
    a, b, radius, c, d = floats
    high = _bits(d)
    _bits(a).copy_(torch.bitwise_and(word, _FRACTION, out=spare))
    high.copy_(torch.bitwise_right_shift(word, 32, out=spare))
    _bits(a).add_(_ONE)
    _negative_log(a.sub_(1 - 2**-24), radius, b)
    _root(radius, a, b, c)
    radius.mul_(std)
    torch.bitwise_and(high, _FRACTION, out=_bits(a)).add_(_ONE)
    _sine_cosine(a.sub_(1.5).mul_(_QUARTER_TURN), c, b)
    torch.add(a, c, out=b).mul_(radius)
    a.sub_(c).mul_(radius)
    _bits(b).bitwise_xor_(torch.bitwise_and(high, _SIGN, out=_bits(c)))
    _bits(a).bitwise_xor_(high.bitwise_left_shift_(1).bitwise_and_(_SIGN))
    return b, a


def _negative_log(x: torch.Tensor, out: torch.Tensor, spare: torch.Tensor) -> None:
    """-ln x, for 0 < x < 1; `x` is lost."""
    exponent = torch.sub(_bits(x), _ROOT_HALF, out=_bits(spare)).bitwise_right_shift_(_FRACTION_BITS)
    _bits(x).sub_(torch.mul(exponent, 1 << _FRACTION_BITS, out=_bits(out)))
    x.sub_(1.0)
    out.copy_(exponent).mul_(-_LN2)
    out.add_(_polynomial(_LOGARITHM, x, spare).mul_(x))


def _root(x: torch.Tensor, spare: torch.Tensor, inverse: torch.Tensor, half: torch.Tensor) -> None:
    """In place of `x`, by two of Newton's steps: within 5e-6, relative."""
    torch.mul(x, -0.5, out=half)
    torch.bitwise_right_shift(_bits(x), 1, out=_bits(inverse)).neg_().add_(_INVERSE_ROOT)
    for _ in range(2):
        torch.mul(inverse, inverse, out=spare)
        inverse.mul_(spare.mul_(half).add_(1.5))
    x.mul_(inverse)


def _sine_cosine(x: torch.Tensor, sine: torch.Tensor, spare: torch.Tensor) -> None:
    """The cosine in place of `x`."""
    torch.mul(x, x, out=spare)
    _polynomial(_SINE, spare, sine).mul_(x)
    _polynomial(_COSINE, spare, x)


def _polynomial(coefficients: Sequence[float], x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Horner's rule; coefficients from the highest power down."""
    torch.mul(x, coefficients[0], out=out)
    for coefficient in coefficients[1:-1]:
        out.add_(coefficient).mul_(x)
    return out.add_(coefficients[-1])


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32)
