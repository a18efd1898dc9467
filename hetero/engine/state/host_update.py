"""The optimizer in host memory: sums leave the chip when they are complete, the host updates beside the chip, and
values come back while the next step begins, in the order in which forwards need them. Why the host computes and state
is not streamed through the chip: docs/design/state.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from queue import SimpleQueue
from time import perf_counter

import torch

from backends.backend import Backend, Copy
from hetero.engine.state.optimizer import Optimizer
from hetero.engine.state.parameter_return import ParameterReturn
from hetero.engine.state.state import State
from hetero.transfer.waits import Waits

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class HostPace:
    """Seconds that the host of an emulated chip takes for each byte, either way, and to update each parameter."""

    byte_s: float = 0.0
    parameter_s: float = 0.0


class HostUpdate:
    """`state` has its masters and moments in host memory; `slices` are of them, `units` where each is first needed.

    In a step: `take` of complete sums, `leave`, `start`, and `through` for what is needed next. Until all is through,
    nobody else may look at the state. How long the chip stands still for it is booked in `waits`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        state: State,
        backend: Backend,
        slices: Sequence[Sequence[str]],
        units: Mapping[str, int],
        pace: HostPace,
        waits: Waits,
    ) -> None:
        self._optimizer, self._state, self._backend, self._pace = optimizer, state, backend, pace
        self._slices, self._units, self._waits = slices, units, waits
        self._sums = {name: backend.beside(master, torch.float32) for name, master in state.masters.items()}
        self._narrow = {
            name: backend.beside(master, state.values[name].dtype)
            for name, master in state.masters.items()
            if state.values[name].dtype != torch.float32
        }
        self._thread = ThreadPoolExecutor(1, "host update", initializer=backend.attend)
        self._copies: dict[str, Copy] = {}
        self._updated: SimpleQueue[float | Exception] = SimpleQueue()
        self._left: list[Sequence[str]] = []
        self._out_free = 0.0

    def take(self, sums: Tensors) -> None:
        """Those that are complete, each once in a step. Does not wait."""
        for name in sums.keys() - self._copies.keys():
            self._copies[name] = self._backend.copy_out(sums[name], self._sums[name])
            self._out_free = max(self._out_free, perf_counter()) + self._pace.byte_s * self._sums[name].nbytes

    def leave(self) -> None:
        """Waits until the sums have left the chip."""
        with self._waits.updating():
            for copy in self._copies.values():
                copy.wait()
            _sleep_until(self._out_free)
        self._copies.clear()

    def start(self, scale: float, lr: float) -> None:
        """The update, by what has left. Does not wait."""
        self._left = list(self._slices)
        self._thread.submit(self._run, scale, lr)

    def through(self, unit: float) -> Iterator[Sequence[str]]:
        """The slices that begin with a unit up to this one and have not been given yet, when their values are here."""
        while self._left and self._units[self._left[0][0]] <= unit:
            with self._waits.updating():
                there_at = self._updated.get()
                if isinstance(there_at, Exception):
                    raise there_at
                _sleep_until(there_at)
                for name, value in self._values(self._left[0]).items():
                    self._state.values[name].copy_(value, non_blocking=True)
            yield self._left.pop(0)

    def close(self) -> None:
        self._thread.shutdown()

    def _values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """In what the chip computes in, but still here."""
        return {name: self._narrow.get(name, self._state.masters[name]) for name in names}

    def _run(self, scale: float, lr: float) -> None:
        done_at = in_free = perf_counter()

        def updated(names: Sequence[str]) -> None:
            nonlocal done_at, in_free
            for name in names:
                if name in self._narrow:
                    self._narrow[name].copy_(self._state.masters[name])
            values = self._values(names).values()
            done_at += self._pace.parameter_s * sum(value.numel() for value in values)
            _sleep_until(done_at)
            in_free = max(in_free, perf_counter()) + self._pace.byte_s * sum(value.nbytes for value in values)
            self._updated.put(in_free)

        try:
            self._optimizer.step(self._sums, scale, lr, self._slices, updated)
        except Exception as error:
            self._updated.put(error)


class HostReturn:
    """The return of parameters whose owner updates them in host memory: they are given when they have come."""

    def __init__(self, host: HostUpdate, back: ParameterReturn, state: State) -> None:
        self._host, self._back, self._state = host, back, state

    def wait(self, unit: int) -> None:
        self._give(self._back.reach(unit))
        self._back.wait(unit)

    def join(self) -> None:
        """What is this rank's alone goes on being updated."""
        self._give(self._back.owed)
        self._back.join()

    def settle(self) -> None:
        self._give(inf)
        self._back.settle()

    def _give(self, unit: float) -> None:
        for names in self._host.through(unit):
            held = self._state.masters, self._state.values
            self._back.give(*({name: tensors[name] for name in names} for tensors in held))


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - perf_counter()))
