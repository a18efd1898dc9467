"""The tokenizer that the job file names."""

from __future__ import annotations

from hetero.data.options import BYTES
from hetero.data.tokenizing.byte_tokenizer import ByteTokenizer
from hetero.data.tokenizing.directory import DirectoryTokenizer
from hetero.data.tokenizing.tokenizer import Tokenizer
from hetero.paths import local


def load_tokenizer(said: str) -> Tokenizer:
    """`bytes`, or that of a directory. Raises DataError for one that cannot be read."""
    return ByteTokenizer() if said == BYTES else DirectoryTokenizer(local(said, "data.tokenizer"))
