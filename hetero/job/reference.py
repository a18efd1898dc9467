"""Every key of the job file, read from the option models: `python -m hetero.job.reference` prints it as Markdown.

docs/job-reference.md is this output. Torch-free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.chip import chip_names
from backends.registry import FAMILIES
from balancer.schedule.registry import schedules
from hetero.job.job import Job
from hetero.models.options import preset_names
from hetero.monitoring.tracker import BUILT_IN

Schema = Mapping[str, Any]

BUILT_IN_NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "model.preset": preset_names,
    "pools.NAME.family": lambda: sorted(FAMILIES),
    "pools.NAME.chip": chip_names,
    "balance.schedule": schedules,
    "monitor.trackers[].name": lambda: sorted(BUILT_IN),
}
"""Keys whose values are names that a registry holds."""

_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "`null`"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
_INTRODUCTION = """\
# The keys of a job file

Written by `python -m hetero.job.reference` from the models that check a job file. [job.md](job.md) explains it with
examples, the [glossary](glossary.md) says what the words mean. `NAME` stands for a name of your choice, `[]` for each
item of a list. A unit of measure is part of a key: `_ms` milliseconds, `_gib` GiB, `gbit_per_s` Gbit/s. Batches and
shares are counted in sequences."""


@dataclass(frozen=True)
class Option:
    """One key. `kind` and `default` are Markdown; `meaning` is empty where the option model says nothing."""

    key: str
    kind: str
    default: str
    meaning: str


def options() -> tuple[Option, ...]:
    """Every key, sections included, in the order of the models."""
    schema = Job.model_json_schema()
    return tuple(_Walk(schema["$defs"]).section(schema, ""))


class _Walk:
    def __init__(self, models: Mapping[str, Schema]) -> None:
        self._models = models

    def section(self, model: Schema, prefix: str) -> Iterator[Option]:
        """The keys of a section and, after each, those below it."""
        required = model.get("required", ())
        for name, schema in model["properties"].items():
            key = f"{prefix}{name}"
            below = list(self._below(schema, key))
            default = "required" if name in required else _default(schema, is_section=bool(below))
            yield Option(key, self._kind(schema), default, self._meaning(schema, below))
            for inner, start in below:
                yield from self.section(inner, f"{start}.")

    def _below(self, schema: Schema, key: str) -> Iterator[tuple[Schema, str]]:
        """The sections that a value may hold, each with the key that it starts at."""
        if "$ref" in schema and "properties" in (model := self._model(schema)):
            yield model, key
        for alternative in schema.get("anyOf", ()):
            yield from self._below(alternative, key)
        if "items" in schema:
            yield from self._below(schema["items"], f"{key}[]")
        if isinstance(schema.get("additionalProperties"), dict):
            yield from self._below(schema["additionalProperties"], f"{key}.NAME")

    def _meaning(self, schema: Schema, below: list[tuple[Schema, str]]) -> str:
        """What the field says of itself, else the first paragraph of the section's docstring."""
        texts = (schema.get("description"), *(model.get("description") for model, _ in below))
        text = next((text for text in texts if text), "")
        return " ".join(text.split("\n\n")[0].split())

    def _kind(self, schema: Schema) -> str:
        if "$ref" in schema:
            model = self._model(schema)
            return "section" if "properties" in model else self._kind(model)
        if "anyOf" in schema:
            return " or ".join(self._kind(alternative) for alternative in schema["anyOf"])
        if "const" in schema or "enum" in schema:
            return " or ".join(_yaml(value) for value in schema.get("enum") or (schema["const"],))
        if schema.get("type") == "array":
            return self._list(schema)
        if schema.get("type") == "object":
            inner = schema.get("additionalProperties")
            return f"map of {self._kinds(inner)}" if isinstance(inner, dict) else "map"
        bounds = ", ".join(f"{sign} {schema[bound]}" for bound, sign in _BOUNDS.items() if bound in schema)
        return f"{_TYPES[schema['type']]} {bounds}".strip()

    def _list(self, schema: Schema) -> str:
        if "prefixItems" in schema:
            return f"[{', '.join(self._kind(item) for item in schema['prefixItems'])}]"
        return f"list of {self._kinds(schema['items'])}"

    def _kinds(self, schema: Schema) -> str:
        """Several of them."""
        return re.sub(r"^(section|integer|number)\b", r"\1s", self._kind(schema))

    def _model(self, schema: Schema) -> Schema:
        return self._models[schema["$ref"].rpartition("/")[2]]


def _default(schema: Schema, *, is_section: bool) -> str:
    if "default" in schema and not (is_section and isinstance(schema["default"], dict)):
        return _yaml(schema["default"])
    return "`{}`"


def _yaml(value: Any) -> str:
    """As one writes it in a job file; YAML takes a number with an exponent for text unless it has a point."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text if '.' in text or not isinstance(value, float) else text.replace('e', '.0e')}`"


def reference() -> str:
    """The page, as Markdown."""
    found = options()
    tops = [option for option in found if "." not in option.key]
    lines = [_INTRODUCTION, "", "## The whole file", "", *_table(tops)]
    for top in tops:
        inner = [option for option in found if option.key.startswith(f"{top.key}.")]
        if inner:
            lines += ["", f"## `{top.key}`", "", _sentence(top.meaning), "", *_table(inner)]
    return "\n".join([*lines, "", *_names()]) + "\n"


def _table(rows: Iterable[Option]) -> list[str]:
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return [*head, *(f"| `{row.key}` | {row.kind} | {row.default} | {_sentence(row.meaning)} |" for row in rows)]


def _sentence(text: str) -> str:
    text = f"{text[:1].upper()}{text[1:]}".replace("|", r"\|")
    return text if not text or text.endswith(".") else f"{text}."


def _names() -> Iterator[str]:
    yield from ("## Names that are built in", "", "| key | values |", "|---|---|")
    for key, names in BUILT_IN_NAMES.items():
        yield f"| `{key}` | {', '.join(f'`{name}`' for name in names())} |"


if __name__ == "__main__":
    print(reference(), end="")
