"""What a message may be squeezed into on its way: codecs, what they save and what they lose.

Torch-free: the kernels are `hetero/transfer/codecs.py`. A value of a block codec is a small number times the scale of
its block; a block is `BLOCK` values in a row, the last one of a message may be shorter. Encoded, the scales come first.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.precision import ITEM_BYTES

BLOCK = 256
SCALE_BYTES = 4  # float32
TAG_BYTES = 1
"""On a link with a codec, the last byte of every message says which one it is written in."""
UNDERFLOW = 2.0**-100
"""Block codecs take a block whose magnitudes are all below this for zeros."""
TILE = 1 << 16
"""Blocks that a kernel takes at a time on a chip."""
_ROUNDING = 1 + 2**-13  # room for float32 arithmetic: a step is 1 / 127 of the largest value


@dataclass(frozen=True)
class Codec:
    """One way to write a row of values.

    tag          its number on the wire
    value_bytes  of one value; 0: as many as it has in memory
    has_scales   whether every block has a scale
    error_bound  the largest error of a finite value, over the largest magnitude in its block, from `UNDERFLOW` up
    error_limit  the gate's: the mean relative error of a block's values (each counted as 1 at most) that is too much
    safer        what to take where this one errs too much
    work_bytes   that a kernel keeps on a chip for each value of a tile
    """

    name: str
    tag: int
    value_bytes: int
    has_scales: bool
    error_bound: float
    error_limit: float
    safer: str
    work_bytes: int = 0

    def encoded_bytes(self, count: int, dtype: str) -> int:
        """Exact length of `count` encoded values, which have the type `dtype` in memory."""
        scales = SCALE_BYTES * blocks(count) if self.has_scales else 0
        return count * (self.value_bytes or ITEM_BYTES[dtype]) + scales

    def scratch_bytes(self, count: int) -> int:
        """What a process keeps on its chip for messages of up to `count` values."""
        return self.work_bytes * min(count, TILE * BLOCK)

    def estimate_ratio(self, dtype: str) -> float:
        """Encoded bytes over plain ones, of long messages; 1 where nothing is saved."""
        return min(1.0, self.encoded_bytes(BLOCK, dtype) / (BLOCK * ITEM_BYTES[dtype]))

    def slot_bytes(self, count: int, dtype: str) -> int:
        """Room for a message in this codec or in any safer one."""
        return TAG_BYTES + max(codec.encoded_bytes(count, dtype) for codec in (self, *self.fallbacks()))

    def fallbacks(self) -> tuple[Codec, ...]:
        """The safer codecs, the next one first; the last is `none`."""
        if self.safer == self.name:
            return ()
        following = CODECS[self.safer]
        return (following, *following.fallbacks())

    def fallback(self, dtype: str) -> Codec:
        """The next safer one that saves bytes, or `none`; of values that have the type `dtype` in memory."""
        return next(codec for codec in self.fallbacks() if codec is NONE or codec.estimate_ratio(dtype) < 1)

    def is_coarser(self, other: Codec) -> bool:
        return self.error_bound > other.error_bound


def blocks(count: int) -> int:
    """Of a row of `count` values."""
    return -(-count // BLOCK)


NONE = Codec("none", 0, 0, False, error_bound=0.0, error_limit=1.0, safer="none")

# What int8 cannot hold, since a block has values too large beside others, fp8 does not hold well either, and bf16 does.
CODECS = {
    codec.name: codec
    for codec in (
        NONE,
        Codec("bf16", 1, 2, False, error_bound=2**-8, error_limit=2**-7, safer="none"),
        Codec("int8", 2, 1, True, error_bound=0.5 / 127 * _ROUNDING, error_limit=0.5, safer="bf16", work_bytes=4),
        Codec("fp8", 3, 1, True, error_bound=16 / 448 * _ROUNDING, error_limit=0.05, safer="bf16", work_bytes=6),
    )
}
"""From fine to coarse."""
BY_TAG = {codec.tag: codec for codec in CODECS.values()}
