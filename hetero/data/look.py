"""What samples hold, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from hetero.data.document_stream import IGNORED
from hetero.data.split import Samples
from hetero.data.stream import TextSample
from hetero.data.text import TextStream
from hetero.data.tokenizing.byte_tokenizer import END_OF_DOCUMENT
from hetero.data.tokenizing.tokenizer import Tokenizer


@dataclass(frozen=True)
class Stretch:
    """Tokens of one document that are learnt, or are not, as text."""

    learnt: bool
    text: str


@dataclass(frozen=True)
class LookedDocument:
    """What of a document is in a sample. `learnt` counts tokens, of `tokens`; the first is never learnt."""

    tokens: int
    learnt: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class LookedSample:
    """Sample `index` of the text, which is number `position` of the run. `padding` counts tokens."""

    position: int
    index: int
    documents: tuple[LookedDocument, ...]
    padding: int


def looked(stream: TextStream, order: Samples, tokenizer: Tokenizer, count: int) -> Iterator[LookedSample]:
    """The first that a run trains on."""
    for position in range(count):
        index = order.index(position)
        sample = stream.sequence(index)
        padding = _padding(sample)
        numbers = _numbers(sample)
        found = [numbers == number for number in np.unique(numbers[: len(numbers) - padding])]
        documents = tuple(_document(sample.tokens[here], sample.labels[here], tokenizer) for here in found)
        yield LookedSample(position, index, documents, padding)


def _padding(sample: TextSample) -> int:
    """Every document has something to learn, so a last one that has not is none."""
    if sample.documents is None:
        return 0
    last = sample.documents == sample.documents[-1]
    return 0 if (sample.labels[last] != IGNORED).any() else int(last.sum())


def _numbers(sample: TextSample) -> np.ndarray:
    """Of each token's document; in a stream of bytes they end with a mark."""
    if sample.documents is not None:
        return sample.documents
    ends = np.asarray(sample.tokens) == END_OF_DOCUMENT
    return np.cumsum(ends) - ends


def _document(tokens: np.ndarray, labels: np.ndarray, tokenizer: Tokenizer) -> LookedDocument:
    learnt = np.concatenate([[False], np.asarray(labels[:-1]) != IGNORED])
    if labels[-1] != IGNORED:
        tokens, learnt = np.append(tokens, labels[-1]), np.append(learnt, True)
    stretches = []
    for is_learnt, group in groupby(zip(learnt.tolist(), tokens.tolist(), strict=True), key=lambda one: one[0]):
        stretches.append(Stretch(is_learnt, tokenizer.decode([token for _, token in group])))
    return LookedDocument(len(tokens), int(learnt.sum()), tuple(stretches))
