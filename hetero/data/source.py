"""From a source to one file of tokens, made once and shipped to all hosts. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.options import DataOptions
from hetero.data.stream import Tokens, TokenStream, token_type
from hetero.data.written import TOKENS, unfinished_tokens

END_OF_DOCUMENT = 256


@dataclass(frozen=True)
class Prepared:
    """A file of tokens and what is known of it. `unigram_entropy` is in nats per token; `note` says in words what of
    the source was left out, if anything was."""

    path: Path
    fingerprint: str
    vocab: int
    n_tokens: int
    unigram_entropy: float
    note: str = ""


def prepare(options: DataOptions, folder: Path) -> Prepared:
    """Write the source's tokens to `folder`/tokens.bin, whole or not at all.

    Raises DataError if the source is missing, unreadable, empty, shorter than one sample, or changes meanwhile.
    """
    corpus = Corpus.of(options.source)
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / TOKENS, unfinished_tokens(folder)
    try:
        counts = _write(corpus, options.vocab, unfinished)
        if not counts.any():
            raise corpus.no_text(options.source)
        _check_length(options, int(counts.sum()))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    fingerprint = TokenStream(path, options.seq_len, options.vocab).fingerprint()
    return Prepared(path, fingerprint, options.vocab, int(counts.sum()), _entropy(counts), corpus.note)


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
