"""What a rank is told to read, opened."""

from __future__ import annotations

from hetero.data.document_stream import DocumentStreams
from hetero.data.mixture import MixedHeldOut, MixedTraining
from hetero.data.split import HeldOut, Samples, Training
from hetero.data.stream import TokenStream
from hetero.words.spec import TextRun

TextStream = TokenStream | DocumentStreams


def text_stream(text: TextRun) -> TextStream:
    """All its samples. Raises DataError if a file of it is missing or is none."""
    return DocumentStreams(text) if text.parts else TokenStream(text.path, text.seq_len, text.vocab)


def orders(text: TextRun, stream: TextStream, seed: int, held_out: int) -> tuple[Samples, Samples]:
    """Those to train on in their order, and the `held_out` that are set apart."""
    if not text.parts:
        return Training(seed, len(stream), held_out), HeldOut(len(stream), held_out)
    mixed = stream.sizes, [part.weight for part in text.parts]
    return MixedTraining(*mixed, seed, held_out), MixedHeldOut(*mixed, held_out)
