"""From a YAML file, or the same as data, to a checked `Job`, or to one `JobError` that says where and what to do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from balancer.plan.plan import Plan
from hetero.errors import explains_itself, is_user_mistake
from hetero.huggingface.folder import CONFIG
from hetero.job.errors import JobError
from hetero.job.file.document import Document, read_document
from hetero.job.file.malformed import malformed
from hetero.job.file.numbers import check_numbers
from hetero.job.job import LONGEST_JOB_NAME, Job
from hetero.job.planning.plan_job import check_written_plan

JOB_FILE, KEPT_MODEL = "job.yaml", "model"
"""In a run directory."""

JobSource = str | os.PathLike[str] | Mapping[str, Any] | Job
"""A job file; the same as data; or a job that has been checked."""


def load_job(job: JobSource, settings: Iterable[str] = ()) -> Job:
    """Read a job, obey `--set` assignments in order, validate. Raises JobError, of a file with its line."""
    return job_from(_document(job, settings))


def job_from(document: Document) -> Job:
    """Validate, down to the plan by hand if there is one. Raises JobError with file and line."""
    try:
        job = Job.model_validate(document.data)
        check_numbers(document.data, job.model_dump())
        check_written_plan(job)
        return job
    except ValidationError as error:
        raise _located(malformed(error, document.data), document) from None
    except Exception as error:
        if not explains_itself(error):
            raise
        raise _located(JobError.at(str(error.key), error), document) from None  # type: ignore[attr-defined]


def recorded_job(run_dir: Path) -> Job:
    """The job of a run, with the model that the run kept, wherever its directory is by now. Raises JobError."""
    kept = run_dir / KEPT_MODEL
    settings = [f"model.hf={json.dumps(os.path.abspath(kept))}"] if (kept / CONFIG).is_file() else []
    return load_job(run_dir / JOB_FILE, settings)


@contextlib.contextmanager
def mistakes_located(job: JobSource, settings: Sequence[str] = (), plan: Path | None = None) -> Iterator[None]:
    """A user's mistake that only comes to light inside, and is about a key of this job or plan, leaves with its
    place. The job is read before: a cluster takes its file away while the run ends."""
    document = _document(job, settings)
    try:
        yield
    except Exception as error:
        if is_user_mistake(error) and not getattr(error, "file", None):
            section = str(error.key).split(".")[0].split("[")[0]  # type: ignore[attr-defined]
            if section in Job.model_fields:
                _located(error, document)
            elif plan is not None and section in Plan.model_fields:
                _located(error, read_document(plan))  # JSON is YAML
        raise


def _document(job: JobSource, settings: Iterable[str]) -> Document:
    path = None if isinstance(job, (Mapping, Job)) else Path(job)
    document = read_document(path) if path else Document("", _plain(job))
    for assignment in settings:
        document.put(assignment)
    if path:
        document.data.setdefault("name", _name_of(path))
        _find_beside(path, document.data.get("model"))
    return document


def _plain(given: Any) -> Any:
    """A job of Python's own objects as a file would have it, which nobody else holds."""
    if isinstance(given, BaseModel):
        return given.unmasked() if isinstance(given, Job) else given.model_dump(mode="json", by_alias=True)
    if isinstance(given, Mapping):
        return {str(key): _plain(value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_plain(item) for item in given]
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _find_beside(path: Path, model: Any) -> None:
    """A model's directory is named as it lies beside the job file; any other name stays as it is."""
    named = model.get("hf") if isinstance(model, dict) else None
    if isinstance(named, str) and os.path.isdir(beside := path.parent / named):
        model["hf"] = os.path.abspath(beside)


def _name_of(path: Path) -> str:
    """What a job that has no name of its own is called."""
    return "".join(letter if letter.isprintable() else "-" for letter in path.stem)[:LONGEST_JOB_NAME]


def _located(error: Exception, document: Document) -> Exception:
    error.file, error.line = document.place(error.key)  # type: ignore[attr-defined]
    return error
