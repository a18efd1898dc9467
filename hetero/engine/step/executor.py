"""Interprets a stage's lowered schedule with tensors: the same list that the simulator interprets with times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from backends.backend import Stopwatch
from balancer.schedule.action import COMPUTING, Action, Actions, Kind, Purpose, refuse_unknown
from balancer.schedule.consistency import check_backwards
from balancer.schedule.lowering import last_backwards
from hetero.engine.expected import ChipPace
from hetero.engine.step.meter import Meter
from hetero.engine.step.stage import Before, ChunkModule, Made
from hetero.layers.weight_gradients import ProductPair
from hetero.models.batch import Batch
from hetero.models.unit_module import Boundary
from hetero.transfer.flow import Flow

FlowKey = tuple[Purpose, int]
"""Purpose, and the chunk before the boundary."""
Sync = Callable[[int, Iterable[str]], None]
"""Is told of the tensors of a chunk whose gradients are complete."""


class Returning(Protocol):
    """Of the parameters that the step before has updated (`hetero/engine/state/parameter_return.py`)."""

    def wait(self, unit: int) -> None:
        """Until those of a unit are here."""

    def join(self) -> None:
        """Before this rank waits for others: does its part for those who wait for it."""


NEARLY_DONE = 0.95
"""What an emulated chip has to hand over from this part of its backward on waits for the end, to make it in time."""


@dataclass
class _Live:
    """One micro-batch inside a chunk, between its forward and its backward."""

    inputs: Boundary
    outputs: Boundary


class Executor:
    """Runs the F, B, I, W, SEND and RECV of one stage, step after step; what SYNC and STEP do is the caller's. A list
    with anything else in it, or with halves of backwards that do not fit, is refused (ScheduleError).

    `names` are the boundary tensors in order, of `shape_BT` on this rank; a flow carries them as (B * T, D) in a
    precision of its own, and the stage computes in `dtype`.
    """

    def __init__(
        self,
        chunks: Mapping[int, ChunkModule],
        actions: Actions,
        flows: Mapping[FlowKey, Flow],
        names: Sequence[str],
        shape_BT: tuple[int, int],
        dtype: torch.dtype,
        meter: Meter,
        pace: ChipPace,
    ) -> None:
        self._chunks, self._actions, self._flows, self._names = chunks, actions, flows, tuple(names)
        self._shape_BT, self._meter, self._pace = shape_BT, meter, pace
        self._last, self._dtype = last_backwards(actions), dtype
        self._ahead = _needed_next(actions)
        self._does: dict[Kind, Callable[[Action], None]] = {
            Kind.F: self._forward, Kind.B: self._backward, Kind.I: self._input_gradient, Kind.W: self._weight_gradients,
            Kind.SEND: self._send, Kind.RECV: self._receive, Kind.SYNC: self._complete, Kind.STEP: self._end,
        }  # fmt: skip
        refuse_unknown(actions, tuple(self._does), "the executor")
        check_backwards(actions)
        self._batch_of: Callable[[int], Batch] = _no_batch
        self._sync: Sync = _nobody
        self._arrival: Returning = HERE
        self._unused: set[int] = set()
        self._live: dict[tuple[int, int], _Live] = {}
        self._pairs: dict[tuple[int, int], deque[ProductPair]] = {}
        self._arrived: dict[tuple[Purpose, int, int], Boundary] = {}
        self._turns = {key: self._count(key, Kind.RECV) for key in flows}
        self.loss: torch.Tensor | None = None
        self.loss_scale = 1.0
        """What the loss is multiplied by for its gradients."""

    def run(self, batch_of: Callable[[int], Batch], sync: Sync, arrival: Returning | None = None) -> None:
        """One step up to STEP. `batch_of(m)` gives a micro-batch. `sync` is told of gradients as soon as they are
        complete, in the midst of a chunk's last B or W, and of all of a chunk's at SYNC. A chunk's first forward waits
        for each unit's parameters by `arrival` (None: all are here).

        Afterwards `loss` is the sum of token losses of the step, None on a stage without the head.
        """
        self.loss, self._batch_of, self._sync, self._arrival = None, batch_of, sync, arrival or HERE
        self._unused = set(self._chunks)
        for key, flow in self._flows.items():
            flow.begin(self._turns[key])
        for action, ahead in zip(self._actions, self._ahead, strict=True):
            for key in ahead:
                self._flows[key].expect()
            self._does[action.kind](action)

    def drain(self) -> None:
        """Waits until everything sent has arrived."""
        for flow in self._flows.values():
            flow.drain()

    def _forward(self, action: Action) -> None:
        chunk, m, batch = action.chunk, action.micro_batch, self._batch_of(action.micro_batch)
        with self._timed(action) as watch:
            inputs = {name: x.requires_grad_() for name, x in self._inputs(chunk, m).items()}
            outputs = self._chunks[chunk](inputs, batch, self._before(chunk, watch))
        self._arrival.join()
        self._live[chunk, m] = _Live(inputs, outputs)
        if "loss" in outputs:
            loss = outputs["loss"].detach()
            self.loss = loss if self.loss is None else self.loss + loss

    def _before(self, chunk: int, watch: Stopwatch) -> Before | None:
        """What a chunk's first forward of a step does before each unit."""
        if chunk not in self._unused:
            return None
        self._unused.discard(chunk)
        return partial(self._await_parameters, chunk, watch)

    def _await_parameters(self, chunk: int, watch: Stopwatch, unit: int) -> None:
        part = self._pace.laps.get((Kind.F, chunk, unit), 0.0)
        with watch.paused(part), self._meter.mark(f"wait parameters {unit}"):
            self._arrival.wait(unit)

    def _inputs(self, chunk: int, m: int) -> Boundary:
        """What the chunk before made of the micro-batch, on another stage or on this one."""
        if chunk == 0:
            return {}
        if (arrived := self._arrived.pop(("activation", chunk, m), None)) is not None:
            return arrived
        return {name: x.detach() for name, x in self._live[chunk - 1, m].outputs.items()}

    def _backward(self, action: Action) -> None:
        chunk, m = action.chunk, action.micro_batch
        with self._timed(action) as watch:
            if self._last.get(chunk) != action:
                self._differentiate(chunk, m)
            else:
                with self._handing_over(action, watch) as made, self._chunks[chunk].telling(made):
                    self._differentiate(chunk, m)
        self._forget(chunk, m)

    def _input_gradient(self, action: Action) -> None:
        chunk, m = action.chunk, action.micro_batch
        with self._timed(action), self._chunks[chunk].keeping() as pairs:
            self._differentiate(chunk, m)
        self._pairs[chunk, m] = pairs
        self._forget(chunk, m)

    def _weight_gradients(self, action: Action) -> None:
        chunk, pairs = action.chunk, self._pairs.pop((action.chunk, action.micro_batch))
        with self._timed(action) as watch:
            if self._last.get(chunk) != action:
                self._chunks[chunk].make(pairs, _nobody)
            else:
                with self._handing_over(action, watch) as made:
                    self._chunks[chunk].make(pairs, made)

    def _timed(self, action: Action) -> AbstractContextManager[Stopwatch]:
        kind, chunk, m, _ = action
        return self._meter.action(kind, f"{kind.value} {chunk}.{m}", self._pace.expected_s.get((kind, chunk)))

    def _differentiate(self, chunk: int, m: int) -> None:
        live, differentiate = self._live[chunk, m], self._chunks[chunk].differentiate
        if "loss" in live.outputs:
            loss = live.outputs["loss"]
            differentiate([loss], [torch.full_like(loss, self.loss_scale)])
        else:
            differentiate([live.outputs[name] for name in self._names], self._output_gradients(chunk, m))

    def _forget(self, chunk: int, m: int) -> None:
        """What was there for a backward that is done."""
        self._live[chunk, m].outputs = {}
        self._live.pop((chunk + 1, m), None)
        if chunk == 0:
            del self._live[chunk, m]

    @contextmanager
    def _handing_over(self, action: Action, watch: Stopwatch) -> Iterator[Made]:
        """Whom a chunk's last backward tells of each unit: its gradients are handed over. An emulated chip computes
        first, and then hands them over at their times, the last ones with SYNC."""
        kind, chunk = action.kind, action.chunk
        paced: list[tuple[float, Iterable[str]]] = []

        def made(unit: int, names: Iterable[str]) -> None:
            if (part := self._pace.laps.get((kind, chunk, unit))) is None:
                self._sync(chunk, names)
            elif part < NEARLY_DONE:
                paced.append((part, names))

        yield made
        for part, names in paced:
            watch.lap(part)
            self._sync(chunk, names)

    def _output_gradients(self, chunk: int, m: int) -> list[torch.Tensor]:
        if (arrived := self._arrived.pop(("gradient", chunk, m), None)) is not None:
            return [arrived[name] for name in self._names]
        return [_gradient(self._live[chunk + 1, m].inputs[name]) for name in self._names]

    def _receive(self, action: Action) -> None:
        _, chunk, m, purpose = action
        assert purpose is not None
        self._arrival.join()
        with self._meter.mark(f"wait {purpose} {chunk}.{m}"):
            arrived = self._flows[purpose, action.boundary].receive_tensors()
        self._arrived[purpose, chunk, m] = self._unflatten(arrived)

    def _send(self, action: Action) -> None:
        assert action.purpose is not None
        live = self._live[action.chunk, action.micro_batch]
        if action.purpose == "activation":
            tensors = [live.outputs[name].detach() for name in self._names]
        else:
            tensors = [_gradient(live.inputs[name]) for name in self._names]
            del self._live[action.chunk, action.micro_batch]
        flow = self._flows[action.purpose, action.boundary]
        flow.send_tensors([x.flatten(0, 1).to(flow.dtype) for x in tensors])

    def _complete(self, action: Action) -> None:
        self._sync(action.chunk, self._chunks[action.chunk].names)

    def _end(self, action: Action) -> None: ...

    def _unflatten(self, tensors: Sequence[torch.Tensor | None]) -> Boundary:
        rows, columns = self._shape_BT
        return {
            name: x.view(rows, columns, x.shape[-1]).to(self._dtype)
            for name, x in zip(self._names, tensors, strict=True)
            if x is not None
        }

    def _count(self, key: FlowKey, kind: Kind) -> int:
        purpose, boundary = key
        return sum(a.kind is kind and a.purpose == purpose and a.boundary == boundary for a in self._actions)


def _needed_next(actions: Actions) -> list[list[FlowKey]]:
    """For each action, what is received before the next computation, where it is one itself: a chip of the pool takes
    that beside it, and nothing earlier."""
    found: list[list[FlowKey]] = [[] for _ in actions]
    latest: list[FlowKey] = []
    for number, action in enumerate(actions):
        if action.kind in COMPUTING:
            latest = found[number]
        elif action.kind is Kind.RECV and action.purpose is not None:
            latest.append((action.purpose, action.boundary))
    return found


class _Here:
    """Nothing is on its way."""

    def wait(self, unit: int) -> None: ...

    def join(self) -> None: ...


HERE = _Here()


def _nobody(chunk: int, names: Iterable[str]) -> None: ...


def _no_batch(micro_batch: int) -> Batch:
    raise RuntimeError("no step has begun")


def _gradient(x: torch.Tensor) -> torch.Tensor:
    if x.grad is None:
        raise RuntimeError("a boundary tensor has no gradient: its unit does not use it")
    return x.grad
