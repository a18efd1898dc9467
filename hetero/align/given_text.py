"""The text that both sides compute on, as files that ranks read too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hetero.align.source import Source
from hetero.data.batches import micro_batch
from hetero.data.mixture import check_splits
from hetero.data.source import prepare
from hetero.data.stream import TokenStream, token_type
from hetero.data.text import orders, text_stream
from hetero.job.checks import check_text
from hetero.job.job import Job
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.words.spec import TextRun


@dataclass(frozen=True)
class GivenText:
    """The first `samples` that a run would train on: in the order of `seed`, where so many are held out. `told` is what
    ranks are told of it; its files stay the caller's."""

    told: TextRun
    samples: int
    seed: int
    held_out: int = 0

    @cached_property
    def batch(self) -> Batch:
        stream = text_stream(self.told)
        training, _ = orders(self.told, stream, self.seed, self.held_out)
        return micro_batch(stream, training, 0, self.samples)


def made_up(ours: Source, samples: int, length: int, seed: int, folder: Path) -> GivenText:
    """Tokens of the model's vocabulary, each as likely, in a file in `folder`. Samples are no longer than the model is
    made for."""
    vocab, longest = ours.description.vocab, architecture(ours.description).longest
    length = length if longest is None else min(length, longest)
    generator, path = torch.Generator().manual_seed(seed), folder / "tokens"
    tokens = torch.randint(0, vocab, (samples * length + 1,), generator=generator)
    tokens.numpy().astype(token_type(vocab)).tofile(path)
    stream = TokenStream(path, length, vocab)
    told = TextRun(path=str(path), fingerprint=stream.fingerprint(), seq_len=length, vocab=vocab)
    return GivenText(told, samples, seed)


def of_job(job: Job, ours: Source, samples: int, folder: Path) -> GivenText:
    """What the job trains on, packed where it packs; `folder` gets what is not kept elsewhere. Raises JobError where it
    does not suit the model, and what `prepare` raises."""
    check_text(ours.description, job.data)
    text = prepare(job.text(), folder, room=ours.description.vocab)
    check_splits(text.samples, text.weights, job.train.global_batch, job.eval.held_out_batches)
    held_out = job.eval.held_out_batches * job.train.global_batch
    return GivenText(text.told(job.data.seq_len), samples, job.train.seed, held_out)
