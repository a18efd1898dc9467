"""Documents as samples."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from hetero.data.errors import DataError
from hetero.data.stream import TextSample, token_type
from hetero.words.spec import TextPart, TextRun

IGNORED = -100
"""The label of a token after which nothing is learnt."""
_HASH_BYTES = 1 << 24


class DocumentStream:
    """Samples of one source: pieces of documents side by side, then padding. The files are mapped, not read. Raises
    DataError if one is missing or is none."""

    def __init__(self, part: TextPart, seq_len: int) -> None:
        self._seq_len = seq_len
        self._tokens = _mapped(part.tokens, token_type(part.vocab))
        self._learnt = None if part.learnt is None else _mapped(part.learnt, np.dtype(np.uint8))
        pieces = _mapped(part.pieces, np.dtype("<i8"))
        self._samples, self._starts, self._lengths = pieces.reshape(3, -1)

    def __len__(self) -> int:
        return int(self._samples[-1]) + 1

    @property
    def packs(self) -> bool:
        """Whether any sample has more than one piece."""
        return len(self._samples) > len(self)

    def sequence(self, index: int) -> TextSample:
        """Each (seq_len,) int64. Padding is of no document."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        first, last = np.searchsorted(self._samples, (index, index + 1))
        tokens = np.zeros(self._seq_len, np.int64)
        labels, positions, documents = np.full_like(tokens, IGNORED), tokens.copy(), tokens.copy()
        at = 0
        for number in range(first, last):
            start, length = int(self._starts[number]), int(self._lengths[number])
            here = slice(at, at := at + length)
            tokens[here] = self._tokens[start : start + length]
            labels[here] = self._labels(start, length)
            positions[here] = np.arange(length)
            documents[here] = number - first
        positions[at:], documents[at:] = np.arange(self._seq_len - at), last - first
        return TextSample(tokens, labels, positions, documents)

    def update(self, digest: xxhash.xxh3_128) -> None:
        """Adds all that its samples are made of."""
        for array in (self._tokens, self._learnt, self._samples, self._starts, self._lengths):
            found = np.empty(0, np.uint8) if array is None else array
            digest.update(f"{len(found)}:{found.dtype.str}:".encode())
            per_chunk = _HASH_BYTES // found.dtype.itemsize
            for first in range(0, len(found), per_chunk):
                digest.update(found[first : first + per_chunk].data)

    def _labels(self, start: int, length: int) -> npt.NDArray[np.int64]:
        labels = self._tokens[start + 1 : start + 1 + length].astype(np.int64)
        if self._learnt is not None:
            labels[self._learnt[start + 1 : start + 1 + length] == 0] = IGNORED
        return labels


class DocumentStreams:
    """Samples of all sources, one source after another; `sizes` says how many each has."""

    def __init__(self, text: TextRun) -> None:
        self._streams = [DocumentStream(part, text.seq_len) for part in text.parts]
        self._seq_len, self._weights = text.seq_len, [part.weight for part in text.parts]
        self.sizes = tuple(len(stream) for stream in self._streams)
        self._ends = list(accumulate(self.sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def packs(self) -> bool:
        """Whether any sample has more than one piece."""
        return any(stream.packs for stream in self._streams)

    def sequence(self, index: int) -> TextSample:
        """As of the source that it is of."""
        part = bisect_right(self._ends, index)
        if index < 0 or part == len(self._streams):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._streams[part].sequence(index - self._ends[part] + self.sizes[part])

    def fingerprint(self) -> str:
        """A hash of all that decides the samples and their order, but the seed: equal where they are."""
        digest = xxhash.xxh3_128(f"{self._seq_len}:{self._weights}:".encode())
        for stream in self._streams:
            stream.update(digest)
        return digest.hexdigest()


def _mapped(path: str, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        return np.memmap(Path(path), kind, mode="r")
    except (OSError, ValueError) as error:
        rule = f"is no file of documents ({error})"
        raise DataError("data", path, rule, "prepare the data again") from None
