"""What the units of a stage are given and give in one micro-batch of a step, copied to host memory as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from hetero.engine.shadow.cargo import BATCH, gradient_before, stream_before
from hetero.engine.step.stage import Stage
from hetero.models.batch import Batch
from hetero.models.unit import LOSS, STREAM
from hetero.models.unit_module import Boundary


class Recording:
    """`tensors` has this rank's parts by the names of `cargo`, gradients of the scaled loss among them. It changes
    nothing of what it looks at."""

    def __init__(self, micro_batch: int) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._micro_batch, self._runs = micro_batch, False

    @contextmanager
    def watching(self, stage: Stage, batch_of: Callable[[int], Batch]) -> Iterator[Callable[[int], Batch]]:
        """Inside, the stage runs a step with the micro-batches that this gives, which are those of `batch_of`."""
        handles = [
            unit.register_forward_hook(partial(self._ran, number))
            for chunk in stage.chunks.values()
            for number, unit in zip(chunk.parameters_of, chunk.units, strict=True)
        ]
        try:
            yield partial(self._begin, batch_of)
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, batch_of: Callable[[int], Batch], micro_batch: int) -> Batch:
        """A forward of a chunk."""
        batch, self._runs = batch_of(micro_batch), micro_batch == self._micro_batch
        if self._runs and batch.tokens_BT.numel():
            columns = (batch.tokens_BT, batch.labels_BT, batch.positions_BT, batch.documents_BT)
            self.tensors[BATCH] = torch.stack([x.flatten().cpu() for x in columns if x is not None])
        return batch

    def _ran(self, number: int, unit: Any, given: tuple[Any, ...], made: Boundary) -> None:
        if not self._runs:
            return
        if STREAM in given[0]:
            self._note(number, given[0][STREAM])
        if STREAM in made:
            self._note(number + 1, made[STREAM])
        else:
            self.tensors[LOSS] = _in_host(made[LOSS].view(1, 1))

    def _note(self, number: int, x: torch.Tensor) -> None:
        """Once, though it leaves one unit and enters the next."""
        if (name := stream_before(number)) not in self.tensors:
            self.tensors[name] = _in_host(x.flatten(0, 1))
            if x.requires_grad:
                x.register_hook(partial(self._note_gradient, number))

    def _note_gradient(self, number: int, gradient: torch.Tensor) -> None:
        self.tensors[gradient_before(number)] = _in_host(gradient.flatten(0, 1))


def _in_host(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to("cpu", copy=True)
