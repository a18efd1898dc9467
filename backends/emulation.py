"""A chip that is not here: real arithmetic on the CPU, paced to the time that the chip would take.

Torch-free to import.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from backends.backend import Backend, MemoryUse, Stopwatch
from backends.chip import ChipSpec
from backends.cpu import CpuBackend, HostStopwatch
from backends.errors import ChipError, OutOfMemory
from backends.options import EmulateOptions, SpeedEvent
from backends.sizes import GIB, size_text

__all__ = ["EmulateOptions", "Emulated", "PacedStopwatch", "SpeedEvent"]

LOOK_S = 0.5e-3
"""A wait of no more found all there."""


class Emulated(CpuBackend):
    """A chip of the family `inner`, played by this process.

    It has the family's limits, the CPU's collectives, the memory of `chip` (counted by claims), and the speed that
    `options` hide: an action told to take `expected_s` takes `expected_s / speed`, give or take the jitter.
    """

    def __init__(self, inner: type[Backend], chip: ChipSpec, options: EmulateOptions) -> None:
        if chip.family != inner.family:
            raise ChipError(
                "chip",
                chip.name,
                f"it is of family {chip.family}, not {inner.family}",
                "Name a chip of the pool's family.",
            )
        self.family = inner.family
        self.visible_devices = inner.visible_devices
        self.capabilities = replace(
            inner.capabilities,
            bfloat16="bfloat16" in chip.peak_flops,
            fused_adamw=CpuBackend.capabilities.fused_adamw,
        )
        self.chip = chip
        self._options = options
        self._speed = options.speed_at(0)
        self._jitter = random.Random(f"{options.seed}/0")
        self._limit_bytes = chip.usable_bytes if options.memory_gib is None else round(options.memory_gib * GIB)
        self._claims: dict[str, int] = {}
        self._peak_bytes = 0
        self.busy_until = 0.0
        """When the chip is through with what its rank has given it to compute before it waited."""
        self.waited_until = 0.0
        """The end of the last wait in which something was still to come."""

    def open(self, index: int) -> None:
        """Chips of one pool differ in their jitter: each draws its own from the seed and its index."""
        self._jitter = random.Random(f"{self._options.seed}/{index}")

    def step(self, number: int) -> None:
        """Tell the chip which step begins, so that its events happen."""
        self._speed = self._options.speed_at(number)

    def start(self, expected_s: float | None = None, after: Stopwatch | None = None) -> Stopwatch:
        """An action without a time of its own is a wait, which for the chip begins when it is through."""
        if expected_s is None:
            return WaitStopwatch(self)
        before = after if isinstance(after, PacedStopwatch) else None
        return PacedStopwatch(self, expected_s * self._slowness(), before)

    def memory(self) -> MemoryUse:
        """What was claimed at most, and the emulated chip's memory."""
        return MemoryUse(self._peak_bytes, self._limit_bytes)

    def usable_bytes(self) -> int:
        return self._limit_bytes

    def claim(self, name: str, bytes_: int) -> None:
        used = sum(self._claims.values()) - self._claims.get(name, 0)
        if used + bytes_ > self._limit_bytes:
            raise OutOfMemory("memory", name, self._shortage(used, bytes_), self._way_out(used + bytes_))
        self._claims[name] = bytes_
        self._peak_bytes = max(self._peak_bytes, used + bytes_)

    def release(self, name: str) -> None:
        self._claims.pop(name, None)

    def _slowness(self) -> float:
        return math.exp(self._options.jitter * self._jitter.gauss(0.0, 1.0)) / self._speed

    def _shortage(self, used: int, bytes_: int) -> str:
        return (
            f"it needs {size_text(bytes_)} beside {size_text(used)} in use, but the emulated {self.chip.name} "
            f"has {size_text(self._limit_bytes)}"
        )

    def _way_out(self, need: int) -> str:
        return (
            f"Save {size_text(need - self._limit_bytes)}: give this stage fewer units, a larger tp or a smaller "
            "micro-batch, or a chip with more memory."
        )


class PacedStopwatch(Stopwatch):
    """Lasts until its target: `lap()` and `stop()` sleep off what real compute left of it, and shorten nothing."""

    def __init__(self, chip: Emulated, target_s: float, after: PacedStopwatch | None) -> None:
        self._chip, self._target_s = chip, target_s
        now = perf_counter()
        self._start = now if after is None else max(after.end, chip.waited_until)
        self._rank_s = now - self._start
        """What the rank was busy with meanwhile."""
        self.end: float = self._start

    def lap(self, part: float) -> None:
        time.sleep(max(0.0, self._start + part * self._target_s - perf_counter()))

    @contextmanager
    def paused(self, part: float) -> Iterator[None]:
        self._chip.busy_until = began = max(perf_counter(), self._start + part * self._target_s)
        yield
        self._start += max(0.0, perf_counter() - began)

    def stop(self) -> None:
        now, target = perf_counter(), self._start + self._target_s
        self.overrun = now - self._rank_s > target
        time.sleep(max(0.0, target - now))
        self.end = max(now, target)

    def seconds(self) -> float:
        """The action's time on the chip, without what the last sleep took too long."""
        return self.end - self._start


class WaitStopwatch(HostStopwatch):
    """What the chip waits for, from when it is through with what it was given."""

    def __init__(self, chip: Emulated) -> None:
        super().__init__()
        self._chip = chip
        self._start = max(self._start, chip.busy_until)

    def stop(self) -> None:
        super().stop()
        self._seconds = max(0.0, self._seconds)
        if self._seconds > LOOK_S:
            self._chip.waited_until = perf_counter()
