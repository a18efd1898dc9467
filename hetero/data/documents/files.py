"""The files that the documents of one source lie in: arrays, to be mapped.

tokens.bin     the tokens of all documents, one after another, as wide as `token_type` says
learnt.bin     a byte for each token: whether it is learnt; only where not all are
ends.bin       where each document ends, in tokens (uint64)
facts.json     what is known of them; written last
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FACTS, UNFINISHED = "facts.json", "unfinished.json"


@dataclass(frozen=True)
class DocumentFacts:
    """`vocab` is how many symbols there are, `entropy` of a token by itself, in nats. `whole` says that no document is
    ever cut in two, `note` what of the source was left out."""

    vocab: int
    whole: bool
    n_documents: int
    n_tokens: int
    entropy: float
    note: str


class DocumentFiles:
    """Those in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens, self.learnt, self.ends = (folder / f"{name}.bin" for name in ("tokens", "learnt", "ends"))

    def facts(self) -> DocumentFacts | None:
        """None unless they are complete."""
        try:
            return DocumentFacts(**json.loads((self.folder / FACTS).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def complete(self, facts: DocumentFacts) -> None:
        """All has been written."""
        write_whole(self.folder / FACTS, json.dumps(asdict(facts)))
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    def document_ends(self) -> npt.NDArray[np.uint64]:
        return np.memmap(self.ends, "<u8", mode="r")

    def learnt_tokens(self) -> npt.NDArray[np.uint8] | None:
        return np.memmap(self.learnt, np.uint8, mode="r") if self.learnt.exists() else None


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
