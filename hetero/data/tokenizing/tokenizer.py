"""What turns text into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hetero.data.tokenizing.chat_template import ChatTemplate

Ids = npt.NDArray[np.uint32]
Answers = tuple[tuple[int, int], ...]
"""Stretches [start, stop) of a text, in letters."""


@dataclass(frozen=True)
class Passage:
    """A whole document as text. `written_out` says that begin and end stand in it, as in a rendered chat; else the
    tokenizer adds them. `answers` None means that all of it is learnt."""

    text: str
    written_out: bool = False
    answers: Answers | None = None


@dataclass(frozen=True)
class Encoded:
    """A document's tokens, (n,), and which of them are learnt, (n,) bool; None means all."""

    tokens: Ids
    learnt: npt.NDArray[np.bool_] | None = None


class Tokenizer(Protocol):
    """Ids are below `vocab`. `fingerprint` is of all that decides them; `template` None means that chats cannot be
    written down."""

    vocab: int
    fingerprint: str
    template: ChatTemplate | None

    def encode(self, passages: Sequence[Passage]) -> list[Encoded]:
        """In their order, on all cores."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some of a document's tokens, begin and end marks included."""
