"""The kernels of the bridge's codecs: a flat tensor to bytes and back, on the chip or straight in a slot.

Nothing is allocated in proportion to a message. Results do not depend on the device's order of work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F

from bridge.codec import BLOCK, SCALE_BYTES, TILE, UNDERFLOW, blocks

_TILE = {"cpu": 1 << 10}  # blocks at a time: 1 MiB of float32 stays in the CPU's cache


class Kernel(Protocol):
    """`data` are bytes of exactly the encoded length, on the device of the flat, contiguous `x`. Nobody waits for the
    device."""

    def encode(self, x: torch.Tensor, data: torch.Tensor) -> None:
        """Has `data` stand for `x`. What is not finite comes back as such, and takes its block with it in a codec that
        has scales."""

    def decode(self, data: torch.Tensor, x: torch.Tensor) -> None: ...


class Cast:
    """Every value in another type (None: its own). Not a number and infinities stay what they are."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self._dtype = dtype

    def encode(self, x: torch.Tensor, data: torch.Tensor) -> None:
        data.view(self._dtype or x.dtype).copy_(x)

    def decode(self, data: torch.Tensor, x: torch.Tensor) -> None:
        x.copy_(data.view(self._dtype or x.dtype))


class Blocks(ABC):
    """Every block as small numbers up to `largest`, times a float32 scale, which is not finite where a value is not."""

    def __init__(self, dtype: torch.dtype, largest: float, device: torch.device) -> None:
        self._dtype, self._largest = dtype, largest
        self._tile = _TILE.get(device.type, TILE)
        self._work = Scratch(torch.float32, device)

    @abstractmethod
    def narrow(self, rows: torch.Tensor, few: torch.Tensor) -> None:
        """Rounds `rows`, which may be overwritten, to what `few` can hold."""

    @abstractmethod
    def widen(self, few: torch.Tensor, rows: torch.Tensor) -> None: ...

    def encode(self, x: torch.Tensor, data: torch.Tensor) -> None:
        scales, values = self._parts(data, x.numel())
        for rows, few, scale in _tiles(x, values, scales, self._tile):
            work = self._work.like(rows)
            scale.copy_(work.copy_(rows).abs_().amax(dim=1, keepdim=True)).mul_(1 / self._largest)
            scale.masked_fill_(scale < UNDERFLOW / self._largest, 0.0)
            inverse = scale.reciprocal().nan_to_num_(posinf=0.0)
            self.narrow(torch.mul(rows, inverse, out=work), few)

    def decode(self, data: torch.Tensor, x: torch.Tensor) -> None:
        scales, values = self._parts(data, x.numel())
        for rows, few, scale in _tiles(x, values, scales, self._tile):
            self.widen(few, rows)
            rows.mul_(scale)

    def _parts(self, data: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        end = SCALE_BYTES * blocks(count)
        return data[:end].view(torch.float32), data[end:].view(self._dtype)


class Int8(Blocks):
    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.int8, 127.0, device)

    def narrow(self, rows: torch.Tensor, few: torch.Tensor) -> None:
        few.copy_(rows.round_())

    def widen(self, few: torch.Tensor, rows: torch.Tensor) -> None:
        rows.copy_(few)


class Float8(Blocks):
    """e4m3. Torch reads it back slowly, so its bits are moved to where float16 has them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.float8_e4m3fn, 448.0, device)
        self._bits = Scratch(torch.int16, device)

    def narrow(self, rows: torch.Tensor, few: torch.Tensor) -> None:
        few.copy_(rows)

    def widen(self, few: torch.Tensor, rows: torch.Tensor) -> None:
        bits = self._bits.like(rows).copy_(few.view(torch.int8))
        bits.bitwise_left_shift_(7).bitwise_and_(~(1 << 14))  # the sign was extended into both upper bits
        rows.copy_(bits.view(torch.float16)).mul_(256.0)  # float16's exponent is biased by 8 more


class Scratch:
    """Memory that is made once and used by one tile after another."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._memory = torch.empty(0, dtype=dtype, device=device)

    def like(self, rows: torch.Tensor) -> torch.Tensor:
        """Uninitialised, in the shape of `rows`."""
        if self._memory.numel() < rows.numel():
            self._memory = self._memory.new_empty(rows.numel())
        return self._memory[: rows.numel()].view(rows.shape)


def _tiles(
    x: torch.Tensor, values: torch.Tensor, scales: torch.Tensor, tile: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Blocks as rows, so many at a time, and the last one by itself if it is shorter. Scales are a column."""
    whole = x.numel() // BLOCK
    bounds = [(first, min(first + tile, whole)) for first in range(0, whole, tile)]
    for first, end in bounds:
        span = slice(first * BLOCK, end * BLOCK)
        yield x[span].view(-1, BLOCK), values[span].view(-1, BLOCK), scales[first:end, None]
    if x.numel() % BLOCK:
        yield x[None, whole * BLOCK :], values[None, whole * BLOCK :], scales[whole:, None]


@cache
def kernel(name: str, device: torch.device) -> Kernel:
    """The process's only one of a codec and device; not for several threads."""
    match name:
        case "none":
            return Cast(None)
        case "bf16":
            return Cast(torch.bfloat16)
        case "int8":
            return Int8(device)
        case "fp8":
            return Float8(device)
    raise ValueError(f"no kernel for the codec {name}")


def worst_error(x: torch.Tensor, decoded: torch.Tensor) -> float:
    """Of the blocks of a message, the largest mean relative error of the values; each value counts as 1 at most, and as
    1 if it was finite and is no more.

    A mean of relative errors is what an outlier cannot hide: beside it the other values of its block vanish, which an
    error by norm would not show. What is missing in a short block counts as exact.
    """
    if x.numel() == 0:
        return 0.0
    lost = x.isfinite().logical_and_(decoded.isfinite().logical_not_())
    relative = (decoded - x).abs().div_(x.abs()).nan_to_num_(posinf=1.0).clamp_(max=1.0).masked_fill_(lost, 1.0)
    return float(F.pad(relative, (0, -x.numel() % BLOCK)).view(-1, BLOCK).mean(dim=1, dtype=torch.float32).max())
