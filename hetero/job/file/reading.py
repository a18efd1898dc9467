"""From the text of a YAML file to data, together with the line that each key stands on.

What a file can do to its reader is bounded: its size, its depth, and how much its aliases unfold to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from backends.core_schema import AmbiguousNumber, CoreLoader
from hetero.job.errors import JobError

KeyPath = tuple[str | int, ...]
Lines = dict[str, int]
"""By dotted key, counted from 1."""

MOST_BYTES = 1 << 20
MOST_VALUES = 100_000
DEEPEST = 50


def dotted(path: Iterable[str | int]) -> str:
    """`pools.nvidia.tp`, `bridge.links[0].between`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def parse(text: str, file: str) -> tuple[Any, Lines]:
    """The data of a YAML text. Raises JobError where it is no YAML, names a key twice, or goes beyond the bounds."""
    try:
        composer = _Composer(file, text)
        return composer.data(), composer.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        raise JobError("YAML", error.problem, "must parse", "mend this line", file=file, line=line) from None
    except yaml.YAMLError as error:  # a character that no text has
        raise JobError("YAML", str(error).splitlines()[0], "must parse", "save it as plain text", file=file) from None
    except RecursionError:
        raise _too_deep(file, None) from None


def read_text(path: Path) -> str:
    """Raises JobError where the file cannot be read, or cannot be a job file."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) <= MOST_BYTES:
            return data.decode("utf-8")
    except OSError as error:
        raise JobError("job file", str(path), f"must be a readable file ({error.strerror})", "check the path") from None
    except ValueError as error:
        reason = getattr(error, "reason", error)  # UnicodeDecodeError says it; a path may hold a null byte
        raise JobError("job file", str(path), f"must be UTF-8 text ({reason})", "save it as UTF-8") from None
    rule = f"must be at most {MOST_BYTES >> 20} MiB"
    raise JobError("job file", str(path), rule, "check the path: is this a job file?")


class _Composer:
    """Makes data of one text; `lines` fills on the way."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._loader = CoreLoader(text)
        self._values = 0
        self.lines: Lines = {}

    def data(self) -> Any:
        try:
            root = self._loader.get_single_node()
            return {} if root is None else self._construct(root, ())
        finally:
            self._loader.dispose()

    def _construct(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(dotted(path), line)
        self._count(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._construct(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return _text(self._loader.construct_object(node))
        except AmbiguousNumber as error:
            remedy = "write it without that 0 (0o17 is octal), or quote it for a text"
            raise JobError(dotted(path), node.value, error.rule, remedy, **self._at(line)) from None
        except ValueError as error:  # a number of thousands of digits, half a character
            remedy = "quote it, or take that out"
            raise JobError(dotted(path), node.value, f"must parse ({error})", remedy, **self._at(line)) from None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        seen: dict[str, int] = {}
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, path, line)
            here = (*path, key)
            if key in seen:
                rule = f"stands once in its section (first on line {seen[key]})"
                raise JobError(dotted(here), key, rule, "remove one of the two", **self._at(line))
            seen[key] = line
            self.lines[dotted(here)] = line
            mapping[key] = self._construct(value_node, here)
        return mapping

    def _key(self, node: yaml.Node, path: KeyPath, line: int) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise JobError(dotted(path) or "job", "? ...", "a key is one word", "write `key: value`", **self._at(line))
        if node.tag == "tag:yaml.org,2002:merge":
            rule = "merged sections (<<) are not read"
            raise JobError(dotted((*path, "<<")), "<<", rule, "write the keys out", **self._at(line))
        try:
            return str(_text(node.value))
        except ValueError as error:
            raise JobError(dotted(path) or "job", node.value, str(error), "rename the key", **self._at(line)) from None

    def _count(self, path: KeyPath, line: int) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            rule = f"a job file has at most {MOST_VALUES} values, aliases unfolded"
            raise JobError(dotted(path)[:80], f"more than {MOST_VALUES}", rule, "remove aliases", **self._at(line))
        if len(path) > DEEPEST:
            raise _too_deep(self._file, line)

    def _at(self, line: int) -> dict[str, Any]:
        return {"file": self._file, "line": line}


def _text(value: Any) -> Any:
    """Texts become file names, variables and messages. Raises ValueError for one that cannot."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("there is a null character in it")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("half a character (a surrogate) is in it")
    return value


def _too_deep(file: str, line: int | None) -> JobError:
    rule = f"sections lie at most {DEEPEST} deep in each other"
    return JobError(
        "YAML", "a deeper one", rule, "look for brackets or an alias that holds itself", file=file, line=line
    )
