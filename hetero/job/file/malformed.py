"""From pydantic's first complaint to one `JobError`: the key as the file has it, what it should be, what was meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hetero.errors import did_you_mean
from hetero.job.errors import JobError
from hetero.job.file.reading import KeyPath, dotted
from hetero.job.job import Job
from hetero.masking import MASK, concealed

REMEDY = "correct it; docs/job-reference.md lists what each key takes"


def malformed(error: ValidationError, data: Any) -> JobError:
    """The first mistake; an unknown key comes first, for a misspelt key is also a missing one."""
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = _told_best(mistakes, data)
    path = _path_in(data, first)
    key, name = dotted(path), path[-1] if path else None
    if first["type"] == "extra_forbidden":
        return JobError(key, name, "is not a known key", did_you_mean(str(name), _known_keys(path[:-1])))
    if first["type"] == "missing" and isinstance(name, str) and name == first["loc"][-1]:
        return JobError(key, None, "is required", f"add `{name}: ...`{_section(path)}")
    same = [mistake for mistake in mistakes if _path_in(data, mistake) == path]
    return JobError(key, _value(first["input"]) if key else None, _rule(same), _remedy(key, same, first["input"]))


def _told_best(mistakes: Sequence[ErrorDetails], data: Any) -> ErrorDetails:
    """The first one; of a list or section that may be of several kinds, one that lies inside it."""
    first = mistakes[0]
    path = _path_in(data, first)
    paths = ((one, _path_in(data, one)) for one in mistakes if isinstance(first["input"], (list, dict)))
    return next((one for one, other in paths if other != path == other[: len(path)]), first)


def _rule(mistakes: Sequence[ErrorDetails]) -> str:
    """Of a value that may be of several kinds, what it should be for each."""
    said = list(dict.fromkeys(_message(mistake) for mistake in mistakes))
    if all(message.startswith("should be ") for message in said):
        return "should be " + " or ".join(message.removeprefix("should be ") for message in said)
    return said[0]


def _message(mistake: ErrorDetails) -> str:
    if mistake["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return "should be a section of keys and values"
    if mistake["type"] == "missing":
        return "has too few items"
    text = mistake["msg"].removeprefix("Value error, ").partition(", unable to parse string as ")[0]
    return text.replace("Input should", "should").replace(" after validation", "")


def _remedy(key: str, mistakes: Sequence[ErrorDetails], value: Any) -> str:
    """A misspelt word out of a few gets a guess."""
    if mistakes[0]["type"] == "string_type" and isinstance(value, (bool, int, float)):
        text = concealed(key, str(value).lower() if _is_word(value) else str(value))
        return "quote it" if text == MASK else f'quote it: "{text}"'
    known = [mistake["ctx"]["expected"] for mistake in mistakes if mistake["type"] == "literal_error"]
    words = [word.strip(" '") for expected in known for word in expected.replace(" or ", ",").split(",")]
    return did_you_mean(value, words) if words and isinstance(value, str) else REMEDY


def _value(given: Any) -> Any:
    """As the file spells what is no text or number."""
    return {None: "null (nothing)", True: "true", False: "false"}.get(given, given) if _is_word(given) else given


def _is_word(given: Any) -> bool:
    return given is None or isinstance(given, bool)


def _section(path: KeyPath) -> str:
    return f" under `{dotted(path[:-1])}`" if len(path) > 1 else ""


def _path_in(data: Any, mistake: ErrorDetails) -> KeyPath:
    """A pydantic location without the names of union branches, which are no keys of the file."""
    path: list[str | int] = []
    for part in mistake["loc"]:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
            path.append(part)
    if mistake["type"] == "missing" and isinstance(data, dict):
        path.append(mistake["loc"][-1])
    return tuple(path)


def _known_keys(path: KeyPath) -> list[str]:
    """The keys that the section at `path` may have."""
    kinds: list[Any] = [Job]
    for part in path:
        kinds = [below for kind in kinds for below in _below(kind, part)]
    return [key for kind in kinds if _is_model(kind) for key in _names(kind)]


def _names(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.init is not False]


def _below(kind: Any, part: str | int) -> list[Any]:
    """The types that a value at `part` of a value of type `kind` may have."""
    if _is_model(kind):
        return _alternatives(kind.model_fields[part].annotation) if part in kind.model_fields else []
    arguments = typing.get_args(kind)
    return _alternatives(arguments[-1] if typing.get_origin(kind) is dict else arguments[0]) if arguments else []


def _alternatives(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [branch for argument in typing.get_args(kind) for branch in _alternatives(argument)]
    if typing.get_origin(kind) is typing.Annotated:
        return _alternatives(typing.get_args(kind)[0])
    return [kind]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
