"""Validation: held-out batches go forward through the same stages, by the same messages, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from balancer.schedule.action import Action
from hetero.engine.step.executor import Executor
from hetero.models.batch import Batch


class Evaluator(Executor):
    """Interprets a list of forwards. No graph is recorded, and tensors are dropped once they are handed on."""

    def evaluate(self, batch_of: Callable[[int], Batch]) -> None:
        """One batch; `loss` is then its sum of token losses, None on a stage without the head."""
        with torch.no_grad():
            self.run(batch_of, _no_gradients)
        assert not self._live, "an evaluated micro-batch was kept"

    def _forward(self, action: Action) -> None:
        super()._forward(action)
        chunk, m = action.chunk, action.micro_batch
        self._live.pop((chunk - 1, m), None)
        if "loss" in self._live[chunk, m].outputs:
            del self._live[chunk, m]

    def _send(self, action: Action) -> None:
        super()._send(action)
        del self._live[action.chunk, action.micro_batch]


def _no_gradients(chunk: int, names: Iterable[str]) -> None:
    raise AssertionError(f"chunk {chunk} was evaluated, and has no gradients to sync")
