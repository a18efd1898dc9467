"""How long the matrix products and the attention of some computation take."""

from __future__ import annotations

from typing import Any

from backends.backend import Backend, Stopwatch
from backends.watching import Watching

_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "matmul", "linear"}


class Products(Watching):
    """Times, one by one and by the chip's own clock, those of what runs inside, forward and backward.

    It costs the host time for every operator, which is no part of a chip's work: nothing else is to be timed inside.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._start = backend.start
        self._watches: list[Stopwatch] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_product(func):
            return func(*args, **(kwargs or {}))
        watch = self._start()
        made = func(*args, **(kwargs or {}))
        watch.stop()
        self._watches.append(watch)
        return made

    @property
    def seconds(self) -> float:
        """May wait for the chip."""
        return sum(watch.seconds() for watch in self._watches)


def _is_product(func: Any) -> bool:
    """Attention has names of its own for every chip and every kernel."""
    name = str(getattr(func, "overloadpacket", func)).rpartition(".")[2]
    return name.rstrip("_") in _PRODUCTS or "attention" in name
