"""The micro-batches of one rank's pipeline."""

from __future__ import annotations

from collections.abc import Callable
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
        self._first, self._share = sum(shares[: place.pipeline]), shares[place.pipeline]
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
        """The step's micro-batches by number. The whole share is read at once: no stage waits for text in mid-step."""
        if self._stream is None:
            return lambda number: self._blank
        first = step * self._global_batch + self._first
        share = micro_batch(self._stream, self._order, first, self._share).to(self._device)
        tokens, labels = share.tokens_BT.split(self._micro_batch), share.labels_BT.split(self._micro_batch)
        return lambda number: Batch(tokens[number], labels[number])
