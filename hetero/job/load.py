"""From a YAML file to a checked `Job`, or to one `JobError` that says where and what to do."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hetero.errors import did_you_mean, explains_itself
from hetero.job.document import Document, KeyPath, dotted, read_document
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.planning import check_written_plan


def load_job(path: Path | str, settings: Iterable[str] = ()) -> Job:
    """Read a job file, obey `--set` assignments in order, validate. Raises JobError with file and line."""
    path = Path(path)
    document = read_document(path)
    for assignment in settings:
        document.put(assignment)
    document.data.setdefault("name", path.stem)
    return job_from(document)


def job_from(document: Document) -> Job:
    """Validate, down to the plan by hand if there is one. Raises JobError with file and line."""
    try:
        job = Job.model_validate(document.data)
        check_written_plan(job)
        return job
    except ValidationError as error:
        raise _located(_from_pydantic(error, document.data), document) from None
    except Exception as error:
        if not explains_itself(error):
            raise
        raise _located(JobError.at(str(error.key), error), document) from None  # type: ignore[attr-defined]


def _located(error: JobError, document: Document) -> JobError:
    error.file, error.line = document.place(error.key)
    return error


def _from_pydantic(error: ValidationError, data: Any) -> JobError:
    """The first mistake; an unknown key comes first, for a misspelt key is also a missing one."""
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = mistakes[0]
    path = _path_in(data, first["loc"])
    key = dotted(path)
    if first["type"] == "extra_forbidden":
        return JobError(key, path[-1], "is not a known key", did_you_mean(str(path[-1]), _known_keys(path[:-1])))
    if first["type"] == "missing":
        return JobError(key, None, "is required", f"add `{path[-1]}: ...`{_section(path)}")
    rule = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return JobError(key, first["input"] if key else None, rule, "correct it; docs/job.md lists what each key takes")


def _section(path: KeyPath) -> str:
    return f" under `{dotted(path[:-1])}`" if len(path) > 1 else ""


def _path_in(data: Any, location: Sequence[str | int]) -> KeyPath:
    """A pydantic location without the names of union branches, which are no keys of the file."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
        elif not (isinstance(data, dict) and index == len(location) - 1):
            continue
        path.append(part)
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
