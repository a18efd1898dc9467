"""From the files of one source to its documents, made once.

Reading and rendering go on while the batch before is encoded: `tokenizers` works on all cores, and lets Python run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hetero.data.documents.files import DocumentFacts, DocumentFiles
from hetero.data.documents.writer import DocumentWriter
from hetero.data.errors import DataError
from hetero.data.records.reading import records
from hetero.data.records.record import DataRecord
from hetero.data.records.tokenized import tokenized
from hetero.data.source_files import SourceFiles
from hetero.data.stream import token_type
from hetero.data.tokenizing.passages import Passages, fields_of
from hetero.data.tokenizing.tokenizer import Encoded, Passage, Tokenizer

VERSION = 1
"""Of what is made of a source: greater by one as soon as anything here or below makes other tokens or labels of it, so
that nobody trains on documents that an older release has kept."""
BATCH, AHEAD, KEEP_EVERY = 256, 4, 64
_ENTROPY_TOKENS = 1 << 22
WHOLE = {"messages", "prompt", "completion", "labels"}
"""Documents with such fields are never cut in two."""


@dataclass(frozen=True)
class MakingProgress:
    """Bytes of the source's files that have been read, of all, and what came of them."""

    read_bytes: float
    total_bytes: int
    n_documents: int
    n_tokens: int


Tell = Callable[[MakingProgress], None]


@dataclass(frozen=True)
class _Read:
    """Some records of one file: passages, or tokens that were there. With them `records` of it are read, and `share`
    of its bytes."""

    passages: Sequence[Passage]
    ready: Sequence[Encoded]
    files: int
    records: int
    share: float


class Making:
    """Documents of one source by one tokenizer, with `room` for so many symbols."""

    def __init__(self, source: SourceFiles, tokenizer: Tokenizer, room: int, *, answers: bool) -> None:
        self._source, self._tokenizer, self._answers = source, tokenizer, answers
        self.fields = source.fields or self._usual_fields()
        self.vocab = room if source.form == "megatron" or "tokens" in self.fields else tokenizer.vocab
        self._passages = Passages(self.fields, tokenizer.template, answers=answers)

    def run(self, files: DocumentFiles, tell: Tell) -> None:
        """Fills the files, from where they were left; may be broken off anywhere. Raises DataError or RecordError."""
        kind = token_type(self.vocab)
        with DocumentWriter(files, kind, learns=self._answers) as writer:
            for number, (read, documents) in enumerate(self._encoded(writer.written.files, writer.written.records)):
                writer.add(documents, read.files, read.records)
                if number % KEEP_EVERY == KEEP_EVERY - 1:
                    writer.keep()
                tell(self._progress(read, writer))
            writer.keep()
            written = writer.written
        self._source.check_unchanged()
        if not written.n_tokens:
            raise self._source.no_text()
        entropy = _entropy(np.memmap(files.tokens, kind, mode="r"), self.vocab)
        whole, counts = bool(WHOLE & self.fields.keys()), (written.n_documents, written.n_tokens)
        files.complete(DocumentFacts(self.vocab, whole, *counts, entropy, self._source.note))

    def _usual_fields(self) -> dict[str, str]:
        for file in self._source.files:
            for record in records(file, self._source.form):
                return fields_of(record)
        raise self._source.no_text()

    def _encoded(self, files: int, skip: int) -> Iterator[tuple[_Read, list[Encoded]]]:
        """What is read and what came of it, in order; a few batches are always under way."""
        with ThreadPoolExecutor(2) as pool:  # one hands over what it has found while the other encodes
            waiting: deque[tuple[_Read, Future[list[Encoded]]]] = deque()
            for read in self._read(files, skip):
                waiting.append((read, pool.submit(self._encode, read)))
                if len(waiting) == AHEAD:
                    first, encoded = waiting.popleft()
                    yield first, encoded.result()
            for read, encoded in waiting:
                yield read, encoded.result()

    def _encode(self, read: _Read) -> list[Encoded]:
        return [*read.ready, *(self._tokenizer.encode(read.passages) if read.passages else ())]

    def _read(self, files: int, skip: int) -> Iterator[_Read]:
        """In batches, none of them of two files; `skip` records of the first are known."""
        for number in range(files, len(self._source.files)):
            found, done = records(self._source.files[number], self._source.form, skip), skip
            while batch := list(islice(found, BATCH)):
                done += len(batch)
                if "tokens" in self.fields:
                    batch = [tokenized(record, self.fields, answers=self._answers) for record in batch]
                ready = [self._ready(record) for record in batch if record.tokens is not None]
                passages = [self._passages.of(record) for record in batch if record.tokens is None]
                yield _Read(passages, ready, number, done, batch[-1].share)
            skip = 0

    def _ready(self, record: DataRecord) -> Encoded:
        """Raises RecordError for tokens that the model has no entry for."""
        assert record.tokens is not None
        if len(record.tokens) and not 0 <= int(record.tokens.min()) <= int(record.tokens.max()) < self.vocab:
            rule = f"the model has {self.vocab:,} entries for tokens, numbered from 0"
            remedy = "use a model with the vocabulary that these tokens are of"
            raise record.place.error(f"token {int(record.tokens.max())}", rule, remedy)
        return Encoded(record.tokens.astype(np.uint32), record.learnt)

    def _progress(self, read: _Read, writer: DocumentWriter) -> MakingProgress:
        sizes = [file.size for file in self._source.files]
        done = sum(sizes[: read.files]) + read.share * sizes[read.files]
        return MakingProgress(done, sum(sizes), writer.written.n_documents, writer.written.n_tokens)


def check_room(tokenizer: Tokenizer, said: str, room: int) -> None:
    """Raises DataError for a tokenizer with more symbols than the model has entries."""
    if tokenizer.vocab > room:
        rule = f"has {tokenizer.vocab:,} symbols, and the model's embedding has room for {room:,}"
        raise DataError("data.tokenizer", said, rule, "use the model's own tokenizer, or a model with a larger vocab")


def _entropy(tokens: np.ndarray, vocab: int) -> float:
    """Of a token by itself, in nats."""
    counts = np.zeros(vocab, np.int64)
    for first in range(0, len(tokens), _ENTROPY_TOKENS):
        found = np.bincount(tokens[first : first + _ENTROPY_TOKENS])
        counts[: len(found)] += found
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
