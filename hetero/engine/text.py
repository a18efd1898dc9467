"""The micro-batches of one rank's pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from hetero.data.batches import micro_batch
from hetero.data.order import SampleOrder
from hetero.data.stream import TokenStream
from hetero.engine.spec import RunSpec
from hetero.engine.stage import Place
from hetero.models.batch import Batch


class Text:
    """Reads a pipeline's share of each global batch. Stages without embedding and head read nothing.

    Step s trains on the samples [s * global_batch, (s + 1) * global_batch) of the seeded order; pipelines take
    consecutive shares of them, so which sample is trained when depends on no plan.
    """

    def __init__(self, spec: RunSpec, place: Place, device: torch.device, reads: bool) -> None:
        shares = [pipeline.share for pipeline in spec.plan.pipelines]
        self._first = sum(shares[: place.pipeline])
        self._global_batch = spec.train.global_batch
        self._micro_batch = spec.plan.pipelines[place.pipeline].micro_batch
        self._device = device
        self.fingerprint: str | None = None
        nothing = torch.empty(0, dtype=torch.int64)
        self._blank = Batch(nothing, nothing)
        self._stream: TokenStream | None = None
        if reads:
            self._stream = TokenStream(Path(spec.text.path), spec.text.seq_len)
            self._order = SampleOrder(spec.train.seed, len(self._stream))
            self.fingerprint = self._stream.fingerprint()

    def reader(self, step: int) -> Callable[[int], Batch]:
        """The step's micro-batches by number."""
        return partial(self._read, step * self._global_batch + self._first)

    def _read(self, first: int, number: int) -> Batch:
        if self._stream is None:
            return self._blank
        start = first + number * self._micro_batch
        return micro_batch(self._stream, self._order, start, self._micro_batch).to(self._device)
