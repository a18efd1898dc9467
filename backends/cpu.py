"""The CPU as a chip: the family that every machine has, and the ground that emulated chips stand on."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from backends.backend import Backend, Capabilities, Copy, MemoryUse, Stopwatch, check_alike
from backends.registry import visible_device_variables

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from backends.communicator import Communicator
    from backends.watch import Watch

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class CpuBackend(Backend):
    """One process on the CPU. Any number of them share the machine, so any index is as good as another."""

    family = "cpu"
    device_type = "cpu"
    collective = "gloo"
    visible_devices = visible_device_variables(family)
    capabilities = Capabilities(bfloat16=True, float64_reduce=True, compile=True, pinned_async=False, fused_adamw=True)
    shares_group = True

    @classmethod
    def count(cls) -> int:
        return os.cpu_count() or 1

    def open(self, index: int) -> None:
        pass

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def synchronize(self) -> None:
        pass

    def memory(self) -> MemoryUse:
        """The process's largest resident set, and the memory of the machine or of its container."""
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return MemoryUse(peak_kib * 1024, _host_memory_bytes())

    def start(self, expected_s: float | None = None, after: Stopwatch | None = None) -> Stopwatch:
        return HostStopwatch()

    def copy_out(self, tensor: Tensor, host: Tensor) -> Copy:
        check_alike(tensor, host)
        host.copy_(tensor.detach())
        return Copy()

    def copy_in(self, host: Tensor, tensor: Tensor, fresh: bool = False) -> Copy:
        check_alike(host, tensor)
        tensor.detach().copy_(host)
        return Copy()

    def landing(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        import torch

        return torch.empty(tuple(shape), dtype=dtype)

    def mark(self) -> Copy:
        return Copy()

    def communicator(
        self, name: str, me: int, members: Sequence[int], watch: Watch, group: ProcessGroup | None, row: int
    ) -> Communicator:
        """As unforgiving as those of the chips that are not here."""
        from backends.strict import StrictCommunicator

        return StrictCommunicator(name, me, members, self.device, watch, group, row)

    def pin(self, buffer: memoryview) -> bool:
        """Host memory is the CPU's own."""
        return True


class HostStopwatch(Stopwatch):
    def __init__(self) -> None:
        self._start = perf_counter()
        self._seconds = 0.0

    @contextmanager
    def paused(self, part: float) -> Iterator[None]:
        began = perf_counter()
        yield
        self._start += perf_counter() - began

    def stop(self) -> None:
        self._seconds = perf_counter() - self._start

    def seconds(self) -> float:
        return self._seconds


@cache
def _host_memory_bytes() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(physical, *map(_cgroup_limit_bytes, _CGROUP_LIMITS)))


def _cgroup_limit_bytes(path: Path) -> float:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such cgroup, or "max"
        return math.inf
