"""The micro-batches of one rank's pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hetero.data.batches import micro_batch
from hetero.data.split import Samples
from hetero.data.text import TextStream, orders, text_stream
from hetero.engine.step.stage import RankPlace
from hetero.models.batch import Batch
from hetero.words.spec import RunSpec


@dataclass(frozen=True)
class PipelineBatch:
    """A pipeline's samples of one global batch, of `size` each micro-batch, and how many of their tokens count."""

    samples: Batch
    size: int
    counted: int

    def micro_batch(self, number: int) -> Batch:
        return self.samples.part(number, self.size)


class Text:
    """Reads a pipeline's share of each global batch; a stage that does not, gives empty batches.

    Step s trains on the samples [s * global_batch, (s + 1) * global_batch) of the seeded order; pipelines take
    consecutive shares of them, so which sample is trained when depends on no plan. Held-out batches are shared alike.
    """

    def __init__(self, spec: RunSpec, place: RankPlace, device: torch.device, reads: bool) -> None:
        shares = [pipeline.share for pipeline in spec.plan.pipelines]
        self._first, self._share = sum(shares[: place.pipeline]), shares[place.pipeline]
        self._global_batch = spec.train.global_batch
        self._micro_batch = spec.plan.pipelines[place.pipeline].micro_batch
        self._device = device
        self.fingerprint: str | None = None
        nothing = torch.empty(0, dtype=torch.int64)
        self._blank = PipelineBatch(Batch(nothing, nothing), self._micro_batch, counted=0)
        self._stream: TextStream | None = None
        self._training: Samples | None = None
        self._validation: Samples | None = None
        if reads:
            self._stream = text_stream(spec.text)
            held_out = spec.evaluation.held_out_batches * self._global_batch
            self._training, self._validation = orders(spec.text, self._stream, spec.train.seed, held_out)
            self.fingerprint = self._stream.fingerprint()

    def batch(self, step: int) -> PipelineBatch:
        """Of the step's batch. It is read at once: no stage waits for text in mid-step."""
        return self._batch_of(step, self._training)

    def held_out_batch(self, batch: int) -> PipelineBatch:
        """The same of a held-out batch."""
        return self._batch_of(batch, self._validation)

    def _batch_of(self, batch: int, samples: Samples | None) -> PipelineBatch:
        if self._stream is None or samples is None:
            return self._blank
        first = batch * self._global_batch + self._first
        read = micro_batch(self._stream, samples, first, self._share)
        return PipelineBatch(read.to(self._device), self._micro_batch, read.counted)
