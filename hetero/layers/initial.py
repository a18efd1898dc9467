"""Initial values that depend on a tensor's name, the seed and an element's place in the logical tensor: nothing else.

Bits come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by a hash of
seed and name, counted by (row, column // 4): each rank makes its own slice alone. The normal transform is Box-Muller
out of the four basic operations and square root, which IEEE 754 rounds alike everywhere: no mathematics library, chip
or version of numpy changes a bit. It is done on the host: not every vendor's chip has float64.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_LANES = 4
_CHUNK_BLOCKS = 1 << 13  # keeps the working set of a chunk within a core's own cache
_MOST_THREADS = 8
"""A host's ranks share its cores, and more would wait for the interpreter."""
_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

# Taylor coefficients, highest power first, in z = x * x. |x| <= pi/4 for the sine and cosine; the logarithm is
# 2 artanh(s) with |s| <= 0.172.
_SINE = tuple((-1) ** i / math.factorial(2 * i + 1) for i in reversed(range(8)))
_COSINE = tuple((-1) ** i / math.factorial(2 * i) for i in reversed(range(9)))
_ARTANH = tuple(2 / (2 * i + 1) for i in reversed(range(10)))
_LN2 = 0.6931471805599453


def normal_slice(
    name: str, seed: int, shape: Sequence[int], slices: Sequence[tuple[int, int]], std: float
) -> npt.NDArray[np.float32]:
    """The part `slices` (one (start, stop) per dimension) of the logical tensor `name` of `shape`: normal, float32."""
    starts_stops = tuple(slices)
    out = np.empty([stop - start for start, stop in starts_stops], np.float32)
    if out.size == 0:
        return out
    rows = _row_numbers(shape[:-1], starts_stops[:-1])
    flat = out.reshape(len(rows), -1)
    start, stop = starts_stops[-1]
    blocks = np.arange(start // _LANES, -(-stop // _LANES), dtype=np.uint64)
    offset = start % _LANES
    key = xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode())
    step = max(1, _CHUNK_BLOCKS // len(blocks))

    def make(first: int) -> None:
        chunk = rows[first : first + step]
        values = _normals(_philox(blocks[None, :], chunk[:, None], key)) * std
        flat[first : first + step] = values.reshape(len(chunk), -1)[:, offset : offset + stop - start]

    _for_each(range(0, len(rows), step), make)
    return out


def _for_each(firsts: Sequence[int], make: Callable[[int], None]) -> None:
    """Calls `make`, which leaves the interpreter to others while numpy works, on the cores that this process has."""
    threads = min(len(firsts), len(os.sched_getaffinity(0)), _MOST_THREADS)
    if threads == 1:
        for first in firsts:
            make(first)
        return
    with ThreadPoolExecutor(threads, "initial values") as pool:
        for _ in pool.map(make, firsts):
            pass


def _row_numbers(shape: Sequence[int], slices: Sequence[tuple[int, int]]) -> Words:
    """Numbers, in the whole tensor, of the rows that the slice of the leading dimensions touches."""
    rows = np.zeros(1, np.uint64)
    for size, (start, stop) in zip(shape, slices, strict=True):
        rows = (rows[:, None] * np.uint64(size) + np.arange(start, stop, dtype=np.uint64)[None, :]).reshape(-1)
    return rows


def _philox(low: Words, high: Words, key: int) -> tuple[Words, Words, Words, Words]:
    """Four words of 32 bits for each counter (low, high, 0, 0)."""
    counter = np.broadcast_arrays(low, high)
    return philox4x32((counter[0], counter[1], np.uint64(0), np.uint64(0)), (key & 0xFFFFFFFF, key >> 32))


def philox4x32(counter: Any, key: tuple[int, int]) -> Any:
    """Philox4x32-10 on four broadcastable uint64 arrays (or scalars) that hold words of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _HALF) ^ c1 ^ np.uint64(k0)
        c2 = (product0 >> _HALF) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _normals(words: tuple[Words, Words, Words, Words]) -> Floats:
    """Standard normals, four for each block, along a new last dimension."""
    out = np.empty((*words[0].shape, _LANES))
    out[..., 0], out[..., 1] = _box_muller(words[0], words[1])
    out[..., 2], out[..., 3] = _box_muller(words[2], words[3])
    return out


def _box_muller(radius_word: Words, angle_word: Words) -> tuple[Floats, Floats]:
    """Two normals from two words: an angle within the first quadrant, measured from pi/4, and two sign bits."""
    uniform = (radius_word.astype(np.float64) + 0.5) * 2.0**-32
    radius = np.sqrt(_negative_log(uniform))  # Box-Muller's sqrt(-2 ln u), times the 1/sqrt(2) of the turn by pi/4
    x = ((angle_word >> np.uint64(2)).astype(np.float64) + 0.5) * (math.pi / 2 * 2.0**-30) - math.pi / 4
    z = x * x
    sine, cosine = _polynomial(_SINE, z) * x, _polynomial(_COSINE, z)
    first, second = radius * (cosine + sine), radius * (cosine - sine)
    return _signed(first, angle_word & np.uint64(1)), _signed(second, (angle_word >> np.uint64(1)) & np.uint64(1))


def _signed(magnitude: Floats, bit: Words) -> Floats:
    return magnitude * (1.0 - 2.0 * bit.astype(np.float64))


def _negative_log(u: Floats) -> Floats:
    mantissa, exponent = np.frexp(u)
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return (low - exponent) * _LN2 - s * _polynomial(_ARTANH, s * s)


def _polynomial(coefficients: Sequence[float], z: Floats) -> Floats:
    """Horner's rule, in place of fresh arrays; coefficients from the highest power down."""
    total = z * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= z
    total += coefficients[-1]
    return total
