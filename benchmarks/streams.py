"""A chip with two streams, played by the CPU: products on one, collectives on the other, each for as long as the chip
would take.

Arithmetic and messages are done at once, and the clock says when the chip would be done with them: like a chip, it lets
its host run ahead until the host asks for all of it (`synchronize`). A collective begins when what it sums is there at
all members and the one before is over; a product waits for those collectives that its host has waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.communicator import Communicator, Work

_aten = torch.ops.aten
_PRODUCTS = {_aten.mm: 0, _aten.addmm: 1, _aten.addmm_: 1}
"""Of torch's operators, with the place of their first factor."""
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu: (2, 0),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (4, 1),
}
"""FLOPs for each query, key and element of a head, half of them masked, and the place of the queries."""


class Streams(TorchDispatchMode):
    """Inside, products take their time. `bytes_per_s` are those that a chip sends in a collective. By another `clock`
    than the host's, its own work may take no time."""

    def __init__(self, flops_per_s: float, bytes_per_s: float, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self._flops_per_s, self._bytes_per_s, self._clock = flops_per_s, bytes_per_s, clock
        self.products_s = self.sent_bytes = self.late_s = 0.0
        self._computed_s = self._collected_s = clock()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if flops := _flops(function.overloadpacket, args):
            self._compute(flops / self._flops_per_s)
        return result

    def begin(self) -> float:
        """Nothing is under way; returns the time."""
        self._computed_s = self._collected_s = self._clock()
        return self._computed_s

    def ready_s(self) -> float:
        """When all that was given to compute is done."""
        return max(self._clock(), self._computed_s)

    def collect(self, ready_s: float, sent_bytes: float) -> None:
        """A collective of what was there at `ready_s`, which what computes from here on waits for."""
        self.sent_bytes += sent_bytes
        self._collected_s = max(self._collected_s, ready_s) + sent_bytes / self._bytes_per_s
        self._computed_s = max(self._computed_s, self._collected_s)

    def synchronize(self) -> None:
        if self._clock is perf_counter:
            time.sleep(max(0.0, self._computed_s - perf_counter()))

    def _compute(self, seconds: float) -> None:
        now = self._clock()
        self.late_s += max(0.0, now - self._computed_s)
        self._computed_s = max(now, self._computed_s) + seconds
        self.products_s += seconds


def _flops(operator: Any, args: Sequence[Any]) -> float:
    if operator in _PRODUCTS:
        one, other = args[_PRODUCTS[operator]], args[_PRODUCTS[operator] + 1]
        return 2.0 * one.numel() * other.shape[-1]
    if operator in _ATTENTION:
        each, place = _ATTENTION[operator]
        return float(each * args[place].numel() * args[place].shape[-2])
    return 0.0


@dataclass
class _Paced:
    """A collective under way."""

    work: Work
    over: Callable[[], None]

    def wait(self) -> None:
        self.work.wait()
        self.over()

    def is_completed(self) -> bool:
        return self.work.is_completed()


class PacedCommunicator(Communicator):
    """`real` does the work. Where it is `blocking`, whoever starts a collective waits for it."""

    def __init__(self, real: Communicator, streams: Streams, blocking: bool) -> None:
        super().__init__(real.name, real.me, real.members, real.device, real.watch)
        self._real, self.streams, self._blocking = real, streams, blocking

    def start_all_reduce(self, x: torch.Tensor, largest: bool = False) -> Work:
        return self._paced(self._real.start_all_reduce(x, largest), 2 * x.nbytes)

    def start_all_gather(self, whole: torch.Tensor, part: torch.Tensor) -> Work:
        return self._paced(self._real.start_all_gather(whole, part), whole.nbytes)

    def start_reduce_scatter(self, part: torch.Tensor, whole: torch.Tensor) -> Work:
        return self._paced(self._real.start_reduce_scatter(part, whole), whole.nbytes)

    def all_gather(self, parts: Sequence[torch.Tensor]) -> None:
        raise NotImplementedError("no tensor-parallel group asks for it inside a step")

    def all_to_all(self, *_: Any) -> Work:
        raise NotImplementedError("no tensor-parallel group asks for it inside a step")

    send = receive = all_to_all

    def _paced(self, work: Work, nbytes: int) -> Work:
        mine, size = torch.tensor([self.streams.ready_s()], dtype=torch.float64), len(self.members)

        def over() -> None:
            self._real.all_reduce(mine, largest=True)  # when the last of the members had come
            self.streams.collect(mine.item(), nbytes * (size - 1) / size)

        paced = _Paced(work, over)
        if not self._blocking:
            return paced
        paced.wait()
        return _Over()


class _Over:
    def wait(self) -> None: ...

    def is_completed(self) -> bool:
        return True
