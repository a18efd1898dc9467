"""docs/job.md names every key of the job file, and docs/map.md every folder."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from hetero.job.job import Job
from tests.architecture.tree import PACKAGES, ROOT


def _keys(kind: Any) -> Iterator[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name
            yield from _keys(field.annotation)
    for argument in typing.get_args(kind):
        yield from _keys(argument)


def test_every_key_of_the_job_file_is_described() -> None:
    keys = set(_keys(Job))
    assert {"steps", "between", "at_step", "share", "trace_every"} <= keys, "the walk reaches every section"
    text = (ROOT / "docs" / "job.md").read_text()
    assert not sorted(key for key in keys if key not in text)


def test_every_folder_is_on_the_map() -> None:
    text = (ROOT / "docs" / "map.md").read_text()
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    folders |= {path for area in ("configs", "tests") for path in (ROOT / area).iterdir() if any(path.glob("*"))}
    named = {str(path.relative_to(ROOT)) for path in folders if path.name != "__pycache__"}
    assert not sorted(name for name in named if f"`{name}/`" not in text)
