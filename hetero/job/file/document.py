"""A job file as data, together with the line that each key stands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hetero.job.errors import JobError
from hetero.job.file.reading import Lines, dotted, parse, read_text
from hetero.masking import concealed


@dataclass
class Document:
    """The data of one YAML file; `lines` maps a dotted key to its line, counted from 1."""

    file: str
    data: dict[str, Any]
    lines: Lines = field(default_factory=dict)

    def place(self, key: str) -> tuple[str, int | None]:
        """File and line of a key, or of the nearest section around it; what `--set` gave stands on no line."""
        while key:
            if key in self.lines:
                line = self.lines[key]
                return (self.file, line) if line else ("--set", None)
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.file, None

    def put(self, assignment: str) -> None:
        """Obey one `--set path=value`; the value is YAML. `null` takes a pool away."""
        name, equals, text = assignment.partition("=")
        *parents, last = _parts(name.strip())
        if not equals or "" in (*parents, last):
            raise JobError("--set", assignment, "reads path=value", "for example --set train.steps=100")
        place: Any = self.data
        for depth, part in enumerate(parents):
            if isinstance(place, dict) and place.get(str(part)) is None:
                place[str(part)] = {}
                self._forget(dotted(parents[: depth + 1]))
            place = self._step(place, part, name, parents[:depth])
        value = _value(name, text)
        if parents == ["pools"] and value is None:
            self._take_away(place, str(last), name)
        else:
            self._assign(place, last, value, name, parents)
        self._forget(dotted([*parents, last]))

    def _forget(self, key: str) -> None:
        """The file no longer says what stands at this key and below it."""
        self.lines = {known: line for known, line in self.lines.items() if not known.startswith((f"{key}.", f"{key}["))}
        self.lines[key] = 0

    def _step(self, place: Any, part: str | int, name: str, around: list[str | int]) -> Any:
        try:
            return place[part if isinstance(place, list) else str(part)]
        except (IndexError, TypeError):
            raise self._no_such_place(place, part, name, around) from None

    @staticmethod
    def _take_away(pools: Any, pool: str, name: str) -> None:
        if not isinstance(pools, dict) or pool not in pools:
            known = ", ".join(map(str, pools)) if isinstance(pools, dict) else "none"
            raise JobError(f"--set {name}", pool, "there is no such pool to take away", f"the job has: {known}")
        del pools[pool]

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
    """Parse a job file. Raises JobError where it cannot be read, is no YAML, or names a key twice."""
    file = str(path)
    data, lines = parse(read_text(path), file)
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise JobError("job", found, "must be a mapping of sections", "see docs/job.md", file=file, line=1)
    return Document(file, data, lines)


def _parts(name: str) -> list[str | int]:
    """`bridge.links[0].transport` or `bridge.links.0.transport` as path parts."""
    pieces = name.replace("[", ".").replace("]", "").split(".")
    return [int(piece) if piece.isdecimal() and len(piece) < 10 else piece for piece in pieces]


def _value(name: str, text: str) -> Any:
    try:
        return parse(text, "--set")[0] if text.strip() else None
    except JobError as error:
        rule = f"the value must be YAML: {concealed(name, error.value)}: {error.rule}"
        raise JobError(f"--set {name}", text, rule, error.remedy if error.key != "YAML" else "quote it") from None
