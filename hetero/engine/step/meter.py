"""Where a rank's step went: busy seconds by kind of action, waits, and, on traced steps, every action one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from backends.backend import Backend, Stopwatch
from balancer.schedule.action import COMPUTING, Kind
from hetero.transfer.waits import Crossed, Waits
from hetero.words.step import Spans, Spent

FIELDS = {Kind.F: "forward_s", Kind.B: "backward_s", Kind.I: "backward_s", Kind.W: "weight_s", Kind.STEP: "optimizer_s"}


class Meter:
    """Times the actions of one step at a time. Device times are read once, at the step's end."""

    def __init__(self, backend: Backend, waits: Waits) -> None:
        self._backend, self.waits = backend, waits
        self._watches: list[tuple[str, Stopwatch]] = []
        self._spans: list[tuple[str, float, Stopwatch | float]] | None = None
        self._start = self._data_s = 0.0
        self._before: Stopwatch | None = None

    def begin(self, traced: bool) -> None:
        self._watches.clear()
        self._spans = [] if traced else None
        self._start, self._data_s, self._before = time.time(), 0.0, None
        self.waits.clear()

    @contextmanager
    def action(self, kind: Kind, label: str, expected_s: float | None) -> Iterator[Stopwatch]:
        """Times what runs inside; an emulated chip takes `expected_s` for it."""
        began = time.time() if self._spans is not None else 0.0
        computes = kind in COMPUTING
        watch = self._backend.start(expected_s, self._before if computes else None)
        yield watch
        watch.stop()
        self._before = watch if computes else None
        self._watches.append((FIELDS[kind], watch))
        if self._spans is not None:
            self._spans.append((label, began, watch))

    @contextmanager
    def mark(self, label: str) -> Iterator[None]:
        """Marks a wait on traced steps; its length is booked by whoever waits."""
        began = time.time() if self._spans is not None else 0.0
        yield
        if self._spans is not None:
            self._spans.append((label, began, time.time() - began))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, the step waits for its samples."""
        began = time.perf_counter()
        with self.mark("wait data"):
            yield
        self._data_s += time.perf_counter() - began

    def syncing(self, chunk: int) -> AbstractContextManager[None]:
        """Marks the handing over of a chunk's gradients on traced steps."""
        return self.mark(f"SYNC {chunk}")

    def spent(self, step: int, epoch: int) -> Spent:
        """Where the step that began last went, of which these are the numbers."""
        self._backend.synchronize()
        self.waits.settle()
        seconds = dict.fromkeys(FIELDS.values(), 0.0)
        for field, watch in self._watches:
            seconds[field] += watch.seconds()
        seconds[FIELDS[Kind.STEP]] += self.waits.update_s
        return Spent(
            step=step,
            epoch=epoch,
            start=self._start,
            end=time.time(),
            **seconds,
            bridge_wait_s=self.waits.link_s,
            bubble_s=self.waits.work_s,
            data_s=self._data_s,
            sent=_plain(self.waits.sent),
            received=_plain(self.waits.received),
            peak_memory_bytes=self._backend.memory().peak_bytes,
            overrun=any(watch.overrun for _, watch in self._watches),
        )

    def spans(self) -> Spans | None:
        """The actions and waits of that step one by one, if it is traced."""
        if self._spans is None:
            return None
        return tuple(
            (label, began, took if isinstance(took, float) else took.seconds()) for label, began, took in self._spans
        )


def _plain(crossed: Mapping[str, Crossed]) -> dict[str, tuple[int, float]]:
    """Bytes and seconds waited, by the pool at the other end of the link."""
    return {pool: (one.nbytes, one.waited_s) for pool, one in crossed.items()}
