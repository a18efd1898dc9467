"""A job file as data, together with the line that each key stands on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hetero.job.errors import JobError

KeyPath = tuple[str | int, ...]


def dotted(path: Iterable[str | int]) -> str:
    """`pools.nvidia.tp`, `bridge.links[0].between`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


@dataclass
class Document:
    """The data of one YAML file; `lines` maps a dotted key to its line, counted from 1."""

    file: str
    data: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def place(self, key: str) -> tuple[str, int | None]:
        """File and line of a key, or of the nearest section around it; what `--set` gave stands on no line."""
        while key:
            if key in self.lines:
                line = self.lines[key]
                return (self.file, line) if line else ("--set", None)
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.file, None

    def put(self, assignment: str) -> None:
        """Obey one `--set path=value`; the value is YAML."""
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise JobError("--set", assignment, "reads path=value", "for example --set train.steps=100")
        *parents, last = _parts(name.strip())
        place: Any = self.data
        for depth, part in enumerate(parents):
            if isinstance(place, dict) and place.get(str(part)) is None:
                place[str(part)] = {}
            place = self._step(place, part, name, parents[:depth])
        self._assign(place, last, _value(assignment, text), name, parents)
        self.lines[dotted([*parents, last])] = 0

    def _step(self, place: Any, part: str | int, name: str, around: list[str | int]) -> Any:
        try:
            return place[part if isinstance(place, list) else str(part)]
        except (IndexError, TypeError):
            raise self._no_such_place(place, part, name, around) from None

    def _assign(self, place: Any, last: str | int, value: Any, name: str, around: list[str | int]) -> None:
        if isinstance(place, dict):
            place[str(last)] = value
        elif isinstance(place, list) and isinstance(last, int) and last < len(place):
            place[last] = value
        else:
            raise self._no_such_place(place, last, name, around)

    @staticmethod
    def _no_such_place(place: Any, part: str | int, name: str, around: list[str | int]) -> JobError:
        inside = dotted(around) or "the job"
        rule = f"{inside} has {len(place)} items" if isinstance(place, list) else f"{inside} holds no other keys"
        return JobError(f"--set {name}", part, rule, f"set {inside} as a whole")


def read_document(path: Path) -> Document:
    """Parse a YAML file. Raises JobError where it cannot be read, is no YAML, or names a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError("job file", str(path), f"must be a readable file ({error.strerror})", "check the path") from None
    except UnicodeDecodeError as error:
        raise JobError("job file", str(path), f"must be UTF-8 text ({error.reason})", "save it as UTF-8") from None
    try:
        return _compose(str(path), text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        raise JobError("YAML", error.problem, "must parse", "mend this line", file=str(path), line=line) from None


def _compose(file: str, text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        document = Document(file, {})
        data = {} if root is None else _construct(loader, root, (), document)
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        found = type(data).__name__
        raise JobError("job", found, "must be a mapping of sections", "see docs/job.md", file=file, line=1)
    document.data = data
    return document


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.lines.setdefault(dotted(path), node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, index), document) for index, item in enumerate(node.value)]
    return loader.construct_object(node)


def _construct_mapping(
    loader: yaml.SafeLoader, node: yaml.MappingNode, path: KeyPath, document: Document
) -> dict[str, Any]:
    seen: dict[str, int] = {}
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        here = (*path, key)
        if key in seen:
            rule = f"stands once in its section (first on line {seen[key]})"
            raise JobError(dotted(here), key, rule, "remove one of the two", file=document.file, line=line)
        seen[key] = line
        document.lines[dotted(here)] = line
        mapping[key] = _construct(loader, value_node, here, document)
    return mapping


def _parts(name: str) -> list[str | int]:
    """`bridge.links[0].transport` or `bridge.links.0.transport` as path parts."""
    pieces = name.replace("[", ".").replace("]", "").split(".")
    return [int(piece) if piece.isdigit() else piece for piece in pieces]


def _value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise JobError(f"--set {assignment}", text, "the value must be YAML", "quote it") from None
