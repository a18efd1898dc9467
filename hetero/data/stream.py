"""A file of tokens as samples of one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from hetero.data.errors import DataError

TOKEN_TYPE = np.dtype("<u2")
_HASH_TOKENS = 1 << 22


class TokenStream:
    """Samples of `seq_len` tokens, side by side; a sample's last label is the next one's first token.

    The file is mapped, not read. Raises DataError if it is missing or holds no whole sample.
    """

    def __init__(self, path: Path | str, seq_len: int) -> None:
        self.seq_len = seq_len
        self._tokens = _mapped(Path(path))
        if len(self) < 1:
            rule = f"{path} has {len(self._tokens)} tokens, a sample needs {seq_len + 1}"
            raise DataError("data.seq_len", seq_len, rule, "use a shorter seq_len or more text")

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self.seq_len

    def sequence(self, index: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Tokens and labels of a sample, each (seq_len,), views of the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        window = self._tokens[index * self.seq_len : (index + 1) * self.seq_len + 1]
        return window[:-1], window[1:]

    def fingerprint(self) -> str:
        """A hash of all tokens and the samples' length: equal where the samples are."""
        digest = xxhash.xxh3_128(f"{self.seq_len}:{TOKEN_TYPE.str}:".encode())
        for first in range(0, len(self._tokens), _HASH_TOKENS):
            digest.update(self._tokens[first : first + _HASH_TOKENS].data)
        return digest.hexdigest()


def _mapped(path: Path) -> npt.NDArray[np.uint16]:
    try:
        return np.memmap(path, TOKEN_TYPE, mode="r")
    except (OSError, ValueError) as error:
        raise DataError("data", str(path), f"is no file of tokens ({error})", "prepare the data again") from None
