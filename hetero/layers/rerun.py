"""Values that backward makes again, bit for bit, in place of keeping them.

Autograd hands over each tensor that an operator keeps, and asks for it when its backward comes
(`torch.autograd.graph.saved_tensors_hooks`); what was handed over can be a note of how it is made. So graphs, gradients
and their order are as without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

Operator = Callable[..., torch.Tensor]


class Rerun:
    """A stretch of a forward of which only the inputs are kept. Backward runs it again, once, as far as it must.

    A run must make the same values, and keep as many, whenever it is made: RuntimeError where it keeps fewer. The
    inputs must not be written to in between.
    """

    def __init__(self, function: Operator, inputs: tuple[Any, ...]) -> None:
        self._function = function
        self._inputs = tuple(_apart(x) for x in inputs)
        self._kept = self._readers = self._left = 0
        self._made: dict[int, torch.Tensor] = {}
        self._result: torch.Tensor | None = None

    def run(self, *inputs: Any) -> torch.Tensor:
        """The function's result, of the inputs with their graph."""
        with saved_tensors_hooks(self._note, self._remake):
            return self._function(*inputs)

    def add_reader(self) -> None:
        """One more operator's backward will ask for the result."""
        self._readers += 1

    def result(self) -> torch.Tensor:
        """Made again for all readers, and let go of with the last one."""
        if self._result is None:
            self._run_again()
            self._left = self._readers
        result, self._left = self._result, self._left - 1
        assert result is not None
        if not self._left:
            self._result = None
        return result

    def _note(self, _: torch.Tensor) -> int:
        self._kept += 1
        return self._kept - 1

    def _remake(self, number: int) -> torch.Tensor:
        if number not in self._made:
            self._run_again()
        return self._made.pop(number)

    def _run_again(self) -> None:
        """Without readers of the result, only until the last operator that keeps something has handed it over."""
        found: list[torch.Tensor] = []

        def catch(x: torch.Tensor) -> None:
            found.append(x.detach())
            if len(found) == self._kept and not self._readers:
                raise _AllMade

        try:
            with torch.enable_grad(), saved_tensors_hooks(catch, _never):
                self._result = self._function(*self._inputs).detach()
        except _AllMade:
            pass
        if len(found) != self._kept:
            raise RuntimeError(f"{self._kept} values were kept in a forward, and {len(found)} when it was made again")
        self._made = dict(enumerate(found))


class Remaker:
    """Operators whose results are made again for those that read them, in the units that run inside `unit`."""

    def __init__(self) -> None:
        self._results: dict[int, tuple[torch.Tensor, Rerun]] = {}

    def remade(self, operator: Operator) -> Operator:
        """The operator, keeping its inputs alone. What reads its result keeps nothing of it."""

        def run(*inputs: Any) -> torch.Tensor:
            if not torch.is_grad_enabled():
                return operator(*inputs)
            rerun = Rerun(operator, inputs)
            result = rerun.run(*inputs)
            self._results[_key(result)] = result, rerun
            return result

        return run

    @contextmanager
    def unit(self) -> Iterator[None]:
        """The results themselves stay until its forward ends, so that no other tensor comes to lie where they do."""
        try:
            with saved_tensors_hooks(self._keep, _give):
                yield
        finally:
            self._results.clear()

    def _keep(self, x: torch.Tensor) -> torch.Tensor | Callable[[], torch.Tensor]:
        if (found := self._results.get(_key(x))) is None:
            return x
        rerun, shape = found[1], (x.shape, x.stride(), x.storage_offset())
        rerun.add_reader()
        return lambda: rerun.result().as_strided(*shape)


def _give(kept: torch.Tensor | Callable[[], torch.Tensor]) -> torch.Tensor:
    return kept if isinstance(kept, torch.Tensor) else kept()


def _key(x: torch.Tensor) -> int:
    return x.untyped_storage()._cdata


def _apart(x: Any) -> Any:
    """The same values without the graph that they came from."""
    if not isinstance(x, torch.Tensor) or x.is_leaf:
        return x
    return x.detach().requires_grad_(x.requires_grad)


def _never(_: None) -> torch.Tensor:
    raise AssertionError("nobody goes backward through a second run")


class _AllMade(Exception):
    pass
