"""What a job's text becomes: one stream of bytes, which samples cut wherever they end, or documents."""

from __future__ import annotations

from pathlib import Path

from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN, DataFormat, DataOptions
from hetero.data.records.formats import by_name, format_of
from hetero.paths import PathError


def is_stream(options: DataOptions) -> bool:
    """Whether it becomes a stream, by what its files are."""
    return options.is_plain and isinstance(options.source, str) and _format(options.source, options.format) == "text"


def packs(options: DataOptions) -> bool:
    """Whether samples are of several documents, which do not see each other."""
    return options.pack and not is_stream(options)


def _format(source: str, asked: DataFormat) -> DataFormat:
    """By the files; where there are none, as for a source on the cluster, by how it is called."""
    if asked != "auto" or source == BUILT_IN:
        return "text" if asked == "auto" else asked
    try:
        return format_of(source, Corpus.of(source).files, asked)
    except (DataError, PathError):
        return by_name(Path(source))
