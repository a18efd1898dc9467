"""From sources to files of tokens, made once and shipped to all hosts. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hetero.data.corpus import Corpus
from hetero.data.documents.making import MakingProgress, Tell
from hetero.data.documents.prepare import prepare_documents
from hetero.data.errors import DataError
from hetero.data.kind import is_stream
from hetero.data.options import DataOptions
from hetero.data.prepared import Prepared
from hetero.data.stream import Tokens, TokenStream, token_type
from hetero.data.tokenizing.byte_tokenizer import END_OF_DOCUMENT
from hetero.data.written import TOKENS, unfinished_tokens


def prepare(options: DataOptions, folder: Path, *, room: int | None = None, tell: Tell | None = None) -> Prepared:
    """Make the sources into tokens: a text of bytes in `folder`/tokens.bin, whole or not at all, all else where it is
    kept between runs, or below `folder` if that is nowhere. `room` is for how many symbols the model has entries;
    `tell` hears how far it is.

    Raises DataError if a source is missing, unreadable, empty, shorter than one sample, or changes meanwhile, and
    RecordError, with file and line, for what stands in it.
    """
    if is_stream(options):
        assert isinstance(options.source, str)
        return _stream(options, Corpus.of(options.source), folder)
    return prepare_documents(options, folder, room, tell or _nobody)


def _stream(options: DataOptions, corpus: Corpus, folder: Path) -> Prepared:
    """All bytes, one after another."""
    assert isinstance(options.source, str)
    assert options.vocab is not None
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / TOKENS, unfinished_tokens(folder)
    try:
        counts = _write(corpus, options.vocab, unfinished)
        if not counts.any():
            raise corpus.no_text(options.source)
        n_tokens = int(counts.sum())
        _check_length(options, n_tokens)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    stream = TokenStream(path, options.seq_len, options.vocab)
    facts = stream.fingerprint(), options.vocab, n_tokens, _entropy(counts), corpus.note
    return Prepared(path, *facts, samples=(len(stream),))


def _nobody(progress: MakingProgress) -> None:
    """Who hears of it."""


def _write(corpus: Corpus, vocab: int, path: Path) -> npt.NDArray[np.int64]:
    """Write the tokens; returns how often each occurs."""
    counts = np.zeros(vocab, np.int64)
    with path.open("wb") as file:
        for tokens in _tokens(corpus, token_type(vocab)):
            found = np.bincount(tokens)
            counts[: len(found)] += found
            file.write(tokens.tobytes())
    return counts


def _tokens(corpus: Corpus, kind: np.dtype[Any]) -> Iterator[Tokens]:
    """Each document's bytes and its end; empty documents leave nothing."""
    for document in corpus.documents():
        empty = True
        for piece in document:
            empty = False
            yield np.frombuffer(piece, np.uint8).astype(kind)
        if not empty:
            yield np.array([END_OF_DOCUMENT], kind)


def _check_length(options: DataOptions, n_tokens: int) -> None:
    if n_tokens <= options.seq_len:
        rule = f"a sample and its last label need {options.seq_len + 1} tokens, the source has {n_tokens}"
        remedy = f"use seq_len {n_tokens - 1} or less, or more text"
        raise DataError("data.seq_len", options.seq_len, rule, remedy)


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
