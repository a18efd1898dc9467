"""Documents of a Megatron data set: tokens in a `.bin`, where each begins in the `.idx` beside it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hetero.data.errors import DataError
from hetero.data.records.formats import index_of
from hetero.data.records.record import DataRecord, RecordPlace
from hetero.data.text_file import TextFile

_HEADER = struct.Struct("<9sQBQQ")
_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_COPY = "copy both files again"


def read(file: TextFile, skip: int) -> Iterator[DataRecord]:
    """A record of each document, which is all its sequences. Raises DataError for files that do not fit together."""
    index = index_of(file)
    sizes, begins, documents, kind = _read_index(index)
    try:
        tokens = np.memmap(index.with_suffix(".bin"), kind, mode="r")
    except (OSError, ValueError) as error:
        raise DataError("data.source", str(index.with_suffix(".bin")), f"cannot be read ({error})", _COPY) from None
    ends = begins // kind.itemsize + sizes
    if len(ends) and int(ends.max()) > len(tokens):
        rule = f"holds {len(tokens):,} tokens, and {index.name} tells of {int(ends.max()):,}"
        raise DataError("data.source", str(index.with_suffix(".bin")), rule, _COPY)
    for number in range(skip, len(documents) - 1):
        first, last = int(documents[number]), int(documents[number + 1])
        parts = [tokens[ends[one] - sizes[one] : ends[one]] for one in range(first, last)]
        document = np.concatenate(parts) if parts else tokens[:0]
        yield DataRecord(RecordPlace(index, number + 1), tokens=document, share=(number + 1) / (len(documents) - 1))


Ints = npt.NDArray[np.int64]


def _read_index(path: Path) -> tuple[Ints, Ints, Ints, np.dtype[np.generic]]:
    """Sizes in tokens and beginnings in bytes of all sequences, the first sequence of each document, and the type."""
    try:
        data = path.read_bytes()
        magic, version, code, n_sequences, n_documents = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION) or code not in _TYPES:
            raise ValueError("another format, version or type of tokens")
        at = _HEADER.size
        sizes = np.frombuffer(data, "<i4", n_sequences, at).astype(np.int64)
        begins = np.frombuffer(data, "<i8", n_sequences, at := at + 4 * n_sequences)
        documents = np.frombuffer(data, "<i8", n_documents, at + 8 * n_sequences)
    except (OSError, ValueError, struct.error) as error:
        raise DataError("data.source", str(path), f"is no index of a Megatron data set ({error})", _COPY) from None
    if (n_documents and int(documents.max()) > n_sequences) or (sizes < 0).any() or (np.diff(documents) < 0).any():
        raise DataError("data.source", str(path), "is damaged: it tells of sequences that are not there", _COPY)
    return sizes, begins, documents, np.dtype(_TYPES[code])
