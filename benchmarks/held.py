"""Pools that are held to a part of a core, by stopping their ranks for the rest of each few milliseconds.

Signals to processes of one's own take no right that a container might withhold, and no cgroup that can be written.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import psutil

from hetero.cluster.session import Session

PERIOD_S = 5e-3
"""Long beside the tenth of a millisecond that a sleep overshoots by, short beside an action."""


@contextmanager
def held(session: Session, parts: Mapping[str, float]) -> Iterator[None]:
    """While inside, the ranks of `parts` run so much of the time, by pool, and each pool's ranks have one core to
    themselves, the pools taking turns on the machine's. Without `parts` everything stays as it is."""
    with ExitStack() as stack:
        if parts:
            cores = sorted(os.sched_getaffinity(0))
            for number, pool in enumerate(session.fleet.names):
                _keep_on(cores[number % len(cores)], pids_of(session, pool))
        for pool, part in parts.items():
            duty = _Duty(pids_of(session, pool), part)
            duty.start()
            stack.callback(duty.end)
        yield


def pids_of(session: Session, pool: str) -> list[int]:
    """Of its ranks."""
    hosts = (host for host in session.fleet.hosts if host.pool.name == pool)
    return [session.pids(host.id)[str(rank)] for host in hosts for rank in host.ranks]


def cpu_s(pids: list[int]) -> float:
    """What they have computed since they began, on all cores together."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(time.user + time.system for time in times)


def _keep_on(core: int, pids: list[int]) -> None:
    """Threads that are there, from which those to come inherit it."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


class _Duty(Thread):
    """Goes by deadlines on the clock, so that what a sleep overshoots by does not add up."""

    def __init__(self, pids: list[int], part: float) -> None:
        super().__init__(name="duty", daemon=True)
        self._pids, self._part, self._over = pids, part, Event()

    def run(self) -> None:
        period, began = 0, perf_counter()
        try:
            while not self._over.wait(began + (period + self._part) * PERIOD_S - perf_counter()):
                self._tell(signal.SIGSTOP)
                period += 1
                self._over.wait(began + period * PERIOD_S - perf_counter())
                self._tell(signal.SIGCONT)
        finally:
            self._tell(signal.SIGCONT)

    def end(self) -> None:
        self._over.set()
        self.join()

    def _tell(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):  # a rank has ended, which its session says
                os.kill(pid, number)
