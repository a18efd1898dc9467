"""What travels with a job to a cluster: its file, its local data, and our packages, in one folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from backends import core_schema
from hetero.data.documents import BUILT_IN
from hetero.job.errors import JobError
from hetero.job.job import Job

PACKAGES = ("hetero", "balancer", "bridge", "backends", "configs")
JOB_FILE = "job.yaml"
MOST_DATA_BYTES = 400 * 1024**2
"""Ray takes job folders up to 500 MiB."""


def pack(job: Job, folder: Path) -> None:
    """Fill an empty folder. Data that is not on this machine keeps its path, which the cluster must know then.

    Raises JobError if the local data is too large to travel."""
    for package in PACKAGES:
        shutil.copytree(_home(package), folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    data = job.resolved()
    source = Path(os.path.expanduser(job.data.source))  # a home that is not known here is one there
    if job.data.source != BUILT_IN and source.exists():
        data["data"]["source"] = str(_pack_data(source, folder))
    (folder / JOB_FILE).write_text(core_schema.dump(data), encoding="utf-8")


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _pack_data(source: Path, folder: Path) -> Path:
    """Copies a file, or the files of a folder that are not hidden; returns its path below `folder`."""
    size = sum(path.stat().st_size for path in _files(source))
    if size > MOST_DATA_BYTES:
        rule = (
            f"local data of {size / 1024**2:,.0f} MiB is too large to travel with a job ({MOST_DATA_BYTES >> 20} MiB)"
        )
        raise JobError("data.source", str(source), rule, "put it where the cluster's head reads it, and name that path")
    target = Path("data") / (source.resolve().name or "text")
    (folder / "data").mkdir()
    if source.is_dir():
        shutil.copytree(source, folder / target, ignore=shutil.ignore_patterns(".*"))
    else:
        shutil.copyfile(source, folder / target)
    return target


def _files(source: Path) -> Iterator[Path]:
    return (path for path in ([source] if source.is_file() else source.rglob("*")) if path.is_file())
