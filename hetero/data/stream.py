"""A file of tokens as samples of one length."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from hetero.data.errors import DataError

Tokens = npt.NDArray[np.uint16 | np.uint32]

_NARROW, _WIDE = np.dtype("<u2"), np.dtype("<u4")
_HASH_TOKENS = 1 << 22


def token_type(vocab: int) -> np.dtype[Any]:
    """What a token of so many symbols, up to 2^32, lies in a file as."""
    return _NARROW if vocab <= 1 << 16 else _WIDE


class TextSample(NamedTuple):
    """Tokens and labels, each (seq_len,). Where documents lie side by side, also each token's position in its own, and
    the number of that in the sample; a label of -100 is of nothing that is learnt."""

    tokens: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    positions: npt.NDArray[np.int64] | None = None
    documents: npt.NDArray[np.int64] | None = None


class TokenStream:
    """Samples of `seq_len` tokens, side by side; a sample's last label is the next one's first token.

    The file, of tokens of `vocab` symbols, is mapped, not read. Raises DataError if it is missing or holds no whole
    sample.
    """

    def __init__(self, path: Path | str, seq_len: int, vocab: int) -> None:
        self.seq_len = seq_len
        self._tokens = _mapped(Path(path), token_type(vocab))
        if len(self) < 1:
            rule = f"{path} has {len(self._tokens)} tokens, a sample needs {seq_len + 1}"
            raise DataError("data.seq_len", seq_len, rule, "use a shorter seq_len or more text")

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self.seq_len

    packs = False
    """Documents run on into each other."""

    @property
    def sizes(self) -> tuple[int]:
        """It is of one source."""
        return (len(self),)

    def sequence(self, index: int) -> TextSample:
        """Views of the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        window = self._tokens[index * self.seq_len : (index + 1) * self.seq_len + 1]
        return TextSample(window[:-1], window[1:])

    def fingerprint(self) -> str:
        """A hash of all tokens and the samples' length: equal where the samples are."""
        digest = xxhash.xxh3_128(f"{self.seq_len}:{self._tokens.dtype.str}:".encode())
        for first in range(0, len(self._tokens), _HASH_TOKENS):
            digest.update(self._tokens[first : first + _HASH_TOKENS].data)
        return digest.hexdigest()


def _mapped(path: Path, kind: np.dtype[Any]) -> Tokens:
    try:
        return np.memmap(path, kind, mode="r")
    except (OSError, ValueError) as error:
        raise DataError("data", str(path), f"is no file of tokens ({error})", "prepare the data again") from None
