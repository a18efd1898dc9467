"""A chip whose copies are made when a test says so, and not before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from torch import Tensor

from backends.backend import Copy, check_alike
from backends.cpu import CpuBackend
from tests.patience import WAIT_S


class LaterCopy(Copy):
    def __init__(self, make: Callable[[], object], nbytes: int = 0) -> None:
        self._make, self._made = make, threading.Event()
        self.nbytes = nbytes
        self.broken = False

    def make(self) -> None:
        if not self._made.is_set():
            self._make()
            self._made.set()

    def done(self) -> bool:
        return self._made.is_set()

    def wait(self) -> None:
        assert self._made.wait(WAIT_S), "the test has never made this copy"
        if self.broken:
            raise RuntimeError("an illegal memory access was encountered")


class LaterChip(CpuBackend):
    """Whatever is copied is copied at `make`, as the memory is then: whoever looks earlier finds something else."""

    def __init__(self) -> None:
        self.outward: deque[LaterCopy] = deque()
        self.inward: deque[LaterCopy] = deque()
        self.marks: deque[LaterCopy] = deque()
        self.computes = False
        self.attended: set[str] = set()

    def attend(self) -> None:
        self.attended.add(threading.current_thread().name)

    def copy_out(self, tensor: Tensor, host: Tensor) -> Copy:
        check_alike(tensor, host)
        self.outward.append(LaterCopy(partial(host.copy_, tensor.detach())))
        return self.outward[-1]

    def copy_in(self, host: Tensor, tensor: Tensor, fresh: bool = False) -> Copy:
        check_alike(host, tensor)
        self.inward.append(LaterCopy(partial(tensor.detach().copy_, host), host.nbytes))
        return self.inward[-1]

    def mark(self) -> Copy:
        """Over at once, unless the chip `computes`."""
        if not self.computes:
            return Copy()
        self.marks.append(LaterCopy(lambda: None))
        return self.marks[-1]

    def make(self, count: int = 1) -> None:
        """Makes the oldest copies out."""
        for _ in range(count):
            self.outward.popleft().make()

    def make_all(self) -> None:
        """Makes whatever is to be made."""
        for copies in (self.outward, self.inward, self.marks):
            while copies:
                copies.popleft().make()

    def break_down(self) -> None:
        """All copies that are still to be made fail, as a chip does after a fault."""
        while self.outward:
            copy = self.outward.popleft()
            copy.broken = True
            copy._made.set()
