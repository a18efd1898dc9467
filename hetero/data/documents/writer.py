"""Writes documents one after another, and goes on where it was broken off."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hetero.data.documents.files import UNFINISHED, DocumentFiles, write_whole
from hetero.data.tokenizing.tokenizer import Encoded


@dataclass(frozen=True)
class Written:
    """What is in the files, and which records of the source it is of: all of the first `files`, and of the next one
    `records`."""

    files: int = 0
    records: int = 0
    n_documents: int = 0
    n_tokens: int = 0


class DocumentWriter(ExitStack):
    """`written` is what was there already. `learns` says whether learnt tokens are told apart."""

    def __init__(self, to: DocumentFiles, kind: np.dtype[Any], *, learns: bool) -> None:
        super().__init__()
        to.folder.mkdir(parents=True, exist_ok=True)
        self._to, self._kind = to, kind
        self.written = _read(to)
        sizes = {to.tokens: self.written.n_tokens * kind.itemsize, to.ends: self.written.n_documents * 8}
        if learns:
            sizes[to.learnt] = self.written.n_tokens
        self._files = {path: self.enter_context(_opened(path, size)) for path, size in sizes.items()}

    def add(self, documents: Sequence[Encoded], files: int, records: int) -> None:
        """Documents, and which records have been read with them. One without tokens leaves nothing."""
        documents = [document for document in documents if len(document.tokens)]
        if documents:
            tokens = np.concatenate([document.tokens for document in documents])
            ends = np.cumsum([len(document.tokens) for document in documents]) + self.written.n_tokens
            self._files[self._to.tokens].write(tokens.astype(self._kind).tobytes())
            self._files[self._to.ends].write(ends.astype("<u8").tobytes())
            if (learnt := self._files.get(self._to.learnt)) is not None:
                learnt.write(np.concatenate([_learnt(document) for document in documents]).tobytes())
        n_tokens = sum(len(document.tokens) for document in documents)
        counts = self.written.n_documents + len(documents), self.written.n_tokens + n_tokens
        self.written = Written(files, records, *counts)

    def keep(self) -> None:
        """From here on it would go on if it were broken off now."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        write_whole(self._to.folder / UNFINISHED, json.dumps(asdict(self.written)))


def _learnt(document: Encoded) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.ones(len(document.tokens), bool) if document.learnt is None else document.learnt


def _read(files: DocumentFiles) -> Written:
    try:
        return Written(**json.loads((files.folder / UNFINISHED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return Written()


def _opened(path: Path, size: int) -> IO[bytes]:
    """To append to its first `size` bytes, which it has."""
    file = path.open("ab")
    file.truncate(size)
    return file
