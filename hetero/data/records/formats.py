"""What the files of a source are, and which of them are read in which order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hetero.data.errors import DataError
from hetero.data.options import DataFormat
from hetero.data.text_file import TextFile

PACKED = (".gz", ".zst")
_BY_SUFFIX: dict[str, DataFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".idx": "megatron",
    ".bin": "megatron",
}
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_BESIDE = {_STATE, "dataset_info.json"}


def format_of(source: str, files: Sequence[TextFile], asked: DataFormat) -> DataFormat:
    """What was asked for, or what the names of all files say alike, or text."""
    if asked != "auto":
        return asked
    if splits := [file for file in files if file.name == _SPLITS]:
        named = ", ".join(str(splits[0].path.parent / name) for name in _splits(splits[0]))
        raise DataError("data.source", source, "holds several data sets", f"name one of them: {named}")
    found = {by_name(file.path) for file in files if file.name not in _BESIDE}
    return found.pop() if len(found) == 1 else "text"


def by_name(path: Path) -> DataFormat:
    """What the name of one file says."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    by_name = _BY_SUFFIX.get(name.suffix, "text")
    if by_name == "megatron" and not all(path.with_suffix(suffix).exists() for suffix in (".bin", ".idx")):
        return "text"
    return by_name


def _splits(file: TextFile) -> list[str]:
    try:
        return list(json.loads(file.path.read_bytes())["splits"])
    except (OSError, ValueError, LookupError, TypeError):
        return []


def readable(source: str, files: Sequence[TextFile], form: DataFormat) -> tuple[TextFile, ...]:
    """Those that hold records, in the order in which they are read. Raises DataError if there is none."""
    if form == "arrow" and (state := next((file for file in files if file.name == _STATE), None)):
        found = _saved_to_disk(state, files)
    elif form == "megatron":
        found = tuple(file for file in files if file.path.suffix == ".idx") or tuple(files)
    else:
        found = tuple(files)
    if not found:
        raise DataError("data.source", source, "has no text", "name a file or folder with text")
    return found


def _saved_to_disk(state: TextFile, files: Sequence[TextFile]) -> tuple[TextFile, ...]:
    """The shards of a data set as its `save_to_disk` lists them; what else lies there is a cache."""
    there = {file.path.name: file for file in files}
    try:
        names = [str(one["filename"]) for one in json.loads(state.path.read_bytes())["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        rule = f"is no list of a data set's files ({error})"
        raise DataError("data.source", str(state.path), rule, "save the data set to disk again") from None
    if missing := [name for name in names if name not in there]:
        rule = f"lists {missing[0]}, which is not there"
        raise DataError("data.source", str(state.path), rule, "copy the data set whole, or save it to disk again")
    return tuple(there[name] for name in names)


def index_of(file: TextFile) -> Path:
    """The index of a Megatron data set of which one of the two files was named."""
    return file.path.with_suffix(".idx")
