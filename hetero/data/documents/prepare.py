"""From sources to documents and the samples that they make, kept from one run to the next."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash

from hetero.data.document_stream import DocumentStreams
from hetero.data.documents.files import DocumentFacts, DocumentFiles
from hetero.data.documents.making import VERSION, Making, Tell, check_room
from hetero.data.documents.packing import Packed, packed
from hetero.data.errors import DataError
from hetero.data.options import BYTES, DataOptions, WeightedSource
from hetero.data.prepared import Prepared
from hetero.data.source_files import SourceFiles
from hetero.data.tokenizing.loading import load_tokenizer
from hetero.data.tokenizing.tokenizer import Tokenizer
from hetero.paths import cache_home
from hetero.private import private_files
from hetero.words.spec import TextPart, TextRun

MOST_SYMBOLS = 1 << 31


@private_files()
def prepare_documents(options: DataOptions, folder: Path, room: int | None, tell: Tell) -> Prepared:
    """Every source by itself. Raises as `prepare` does."""
    tokenizer, room = load_tokenizer(BYTES if options.is_tokenized else options.tokenizer), room or MOST_SYMBOLS
    if not options.is_tokenized:
        check_room(tokenizer, options.tokenizer, room)
    made = [_PreparedSource(options, source, tokenizer, room, _place(folder)) for source in options.sources]
    for part in made:
        part.make(tell)
    facts = [part.facts for part in made]
    parts = tuple(part.told() for part in made)
    text = TextRun(path=parts[0].tokens, fingerprint="", seq_len=options.seq_len, vocab=facts[0].vocab, parts=parts)
    streams, n_tokens = DocumentStreams(text), sum(one.n_tokens for one in facts)
    entropy = sum(one.entropy * one.n_tokens for one in facts) / n_tokens
    note = "; ".join(dict.fromkeys(filter(None, (part.note for part in made))))
    known = streams.fingerprint(), max(one.vocab for one in facts), n_tokens, entropy, note
    return Prepared(Path(text.path), *known, samples=streams.sizes, parts=parts, packs=streams.packs)


class _PreparedSource:
    """One source's documents, in a folder of their own below `place`."""

    def __init__(
        self, options: DataOptions, source: WeightedSource, tokenizer: Tokenizer, room: int, place: Path
    ) -> None:
        self._options, self._weight = options, source.weight
        found = SourceFiles(source)
        if found.form in ("text", "megatron") and (options.loss == "answers" or found.fields):
            key, value = ("data.fields", dict(found.fields)) if found.fields else ("data.loss", options.loss)
            rule = f"the files of {source.source} are {found.form}, which has neither fields nor answers"
            raise DataError(key, value, rule, "leave it out, or name data of records")
        self._making = Making(found, tokenizer, room, answers=options.loss == "answers")
        identity = [
            VERSION,
            found.digest(),
            tokenizer.fingerprint,
            sorted(self._making.fields.items()),
            self._making.vocab,
        ]
        key = xxhash.xxh3_128(json.dumps([*identity, options.loss]).encode()).hexdigest()
        self._files, self.note = DocumentFiles(place / key), ""

    @property
    def facts(self) -> DocumentFacts:
        facts = self._files.facts()
        assert facts is not None
        return facts

    def make(self, tell: Tell) -> None:
        """What is not there yet. Two runs that want the same wait for each other."""
        with _alone(self._files.folder):
            if self._files.facts() is None:
                self._making.run(self._files, tell)
            found = self._packed()
            if not len(found.pieces):
                rule = "no document of the source has a token to learn"
                raise DataError("data.seq_len", self._options.seq_len, rule, "use longer samples, or another source")
            unfinished = self._pieces.with_suffix(".new")
            found.pieces.T.astype("<i8").tofile(unfinished)
            unfinished.replace(self._pieces)
        self.note = "; ".join(filter(None, (self.facts.note, found.note(self._options.seq_len))))

    def told(self) -> TextPart:
        learnt = str(self._files.learnt) if self._files.learnt.exists() else None
        return TextPart(
            tokens=str(self._files.tokens),
            learnt=learnt,
            pieces=str(self._pieces),
            vocab=self.facts.vocab,
            weight=self._weight,
        )

    @property
    def _pieces(self) -> Path:
        kind = "packed" if self._options.pack else "single"
        return self._files.folder / f"pieces-{self._options.seq_len}-{kind}.bin"

    def _packed(self) -> Packed:
        files, options = self._files, self._options
        return packed(
            np.asarray(files.document_ends()),
            options.seq_len,
            whole=self.facts.whole,
            pack=options.pack,
            learnt=files.learnt_tokens(),
        )


def _place(folder: Path) -> Path:
    """Where documents are kept: the user's cache, or the run's folder if there is none."""
    try:
        place = cache_home() / "data"
        place.mkdir(parents=True, exist_ok=True)
        (place / ".writable").touch()
        return place
    except OSError:
        return folder.resolve() / "documents"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else makes what is in it meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
