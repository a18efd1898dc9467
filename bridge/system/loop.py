"""The event loop of an endpoint: one thread that sleeps until a descriptor, a timer or another thread wakes it."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from bridge.system.linux import Timer

Callback = Callable[[], object]


class Loop:
    """Runs callbacks one after another, so that what they share needs no lock.

    Only `call_soon` and `stop` may be called from other threads.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._ready: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._timer = Timer()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waking = threading.Lock()  # against `close`: the number may be another's descriptor by then
        self._thread = threading.get_ident()
        self._stopped = False
        self.watch(self._wake, lambda: os.eventfd_read(self._wake))
        self.watch(self._timer.fd, self._timer.clear)

    def watch(self, fd: int, callback: Callback, *, writable: bool = False) -> None:
        """Calls `callback` whenever `fd` can be read or, if asked, written. Replaces an earlier watch of `fd`."""
        mask = select.EPOLLIN | (select.EPOLLOUT if writable else 0)
        (self._epoll.modify if fd in self._callbacks else self._epoll.register)(fd, mask)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forgets `fd`; to be called before it is closed."""
        if self._callbacks.pop(fd, None):
            self._epoll.unregister(fd)

    def call_soon(self, callback: Callback) -> None:
        """Runs `callback` in the loop's thread, after those asked for before."""
        self._ready.append(callback)
        if threading.get_ident() != self._thread:
            self._wake_up()

    def call_at(self, when: float, callback: Callback) -> None:
        """Runs `callback` at `when`, a time of `time.monotonic`; callbacks of one time run in the order of asking."""
        heapq.heappush(self._timers, (when, next(self._order), callback))
        if self._timers[0][0] == when:
            self._timer.set(when)

    def run(self) -> None:
        """Until `stop`."""
        self._thread = threading.get_ident()
        while not self._stopped:
            for fd, _ in self._epoll.poll(0 if self._ready else -1):
                if callback := self._callbacks.get(fd):
                    callback()
            for _ in range(len(self._ready)):
                self._ready.popleft()()
            self._run_timers()

    def stop(self) -> None:
        """Ends `run` after the callbacks that are due now."""
        self._stopped = True
        self._wake_up()

    def close(self) -> None:
        """Closes the loop's own descriptors. Transports' threads may still call `call_soon`, without effect."""
        self._epoll.close()
        self._timer.close()
        with self._waking:
            os.close(self._wake)
            self._wake = -1

    def _wake_up(self) -> None:
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _run_timers(self) -> None:
        now, ran = time.monotonic(), False
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
            ran = True
        if ran and self._timers:
            self._timer.set(self._timers[0][0])
