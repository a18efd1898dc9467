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
    """A stretch of a forward of which only the inputs are kept. The first backward that needs a value of it runs it
    again, for all that need one.

    A run must make and keep the same values whenever it is made; RuntimeError where they are of other shapes. Nobody
    writes to the inputs in between.
    """

    def __init__(self, function: Operator, inputs: tuple[Any, ...]) -> None:
        self._function = function
        self._inputs = tuple(_apart(x) for x in inputs)
        self._kept: list[torch.Size] = []
        self._readers = self._left = 0
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
        result, self._left = self._result, self._left - 1
        assert result is not None
        if not self._left:
            self._result = None
        return result

    def _note(self, x: torch.Tensor) -> int:
        self._kept.append(x.shape)
        return len(self._kept) - 1

    def _remake(self, number: int) -> torch.Tensor:
        if number not in self._made:
            self._run_again()
        return self._made.pop(number)

    def _run_again(self) -> None:
        found: list[torch.Tensor] = []
        with torch.enable_grad(), saved_tensors_hooks(lambda x: found.append(x.detach()), _never):
            result = self._function(*self._inputs).detach()
        if [x.shape for x in found] != self._kept:
            raise RuntimeError(f"{len(self._kept)} values were kept in a forward, and others when it ran again")
        self._made, self._left = dict(enumerate(found)), self._readers
        self._result = result if self._readers else None


class Remaker:
    """Operators whose results are made again for those that read them inside `reading`."""

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
    def reading(self) -> Iterator[None]:
        """The results themselves stay as long, so that no other tensor comes to lie where they do."""
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
