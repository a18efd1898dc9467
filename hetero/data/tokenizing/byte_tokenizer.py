"""A token for each byte of UTF-8, and one more that ends a document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hetero.data.tokenizing.chat_template import ChatTemplate
from hetero.data.tokenizing.tokenizer import Encoded, Passage

END_OF_DOCUMENT = 256


class ByteTokenizer:
    """What is always there."""

    vocab = 257
    fingerprint = "bytes"
    template: ChatTemplate | None = None

    def encode(self, passages: Sequence[Passage]) -> list[Encoded]:
        return [_encoded(passage) for passage in passages]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < END_OF_DOCUMENT).decode("utf-8", "replace")


def _encoded(passage: Passage) -> Encoded:
    tokens = np.frombuffer(passage.text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint32)
    tokens = np.append(tokens, np.uint32(END_OF_DOCUMENT))
    if passage.answers is None:
        return Encoded(tokens)
    learnt = np.zeros(len(tokens), bool)
    for start, stop in passage.answers:
        first = len(passage.text[:start].encode())
        learnt[first : first + len(passage.text[start:stop].encode())] = True
    learnt[-1] = bool(passage.answers) and passage.answers[-1][1] == len(passage.text)
    return Encoded(tokens, learnt)
