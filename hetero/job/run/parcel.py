"""What travels with a job to a cluster: its file, its local data, and our packages, in one folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from backends import core_schema
from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN
from hetero.job.checks import check_told
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.private import private_files

PACKAGES = ("hetero", "balancer", "bridge", "backends", "configs")
JOB_FILE = "job.yaml"
MOST_DATA_BYTES = 400 * 1024**2
"""Ray takes job folders up to 500 MiB."""


def pack(job: Job, folder: Path) -> str:
    """Fill an empty folder; returns in words what of the data was left out, if anything was. Data that is not on this
    machine keeps its path, which the cluster must know then.

    Raises JobError if a value of the job is masked or the local data is too large to travel, DataError if that cannot
    be read or is not all below the source."""
    for package in PACKAGES:
        shutil.copytree(_home(package), folder / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    data, note = job.unmasked(), ""
    check_told(data)
    source = os.path.expanduser(job.data.source)  # a home that is not known here is one there
    if job.data.source != BUILT_IN and os.path.exists(source):
        corpus = Corpus.of(job.data.source)
        data["data"]["source"] = _pack_data(corpus, Path(source), folder)
        note = corpus.note
    with private_files():
        (folder / JOB_FILE).write_text(core_schema.dump(data), encoding="utf-8")
    return note


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _pack_data(corpus: Corpus, source: Path, folder: Path) -> str:
    """Copies the files under the names that they have in the source; returns its path below `folder`."""
    _check_portable(corpus, source)
    target = Path("data") / (source.resolve().name or "text")
    for file in corpus.files:
        place = folder / target / file.name if source.is_dir() else folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as copy:
            copy.writelines(file.pieces())
    return str(target)


def _check_portable(corpus: Corpus, source: Path) -> None:
    size = sum(file.size for file in corpus.files)
    if size == 0:
        raise corpus.no_text(str(source))
    if size > MOST_DATA_BYTES:
        rule = (
            f"local data of {size / 1024**2:,.0f} MiB is too large to travel with a job ({MOST_DATA_BYTES >> 20} MiB)"
        )
        raise JobError("data.source", str(source), rule, "put it where the cluster's head reads it, and name that path")
    if corpus.leading_out:
        rule = f"only what is below it travels with a job, and its link {corpus.leading_out[0]} leads out of it"
        remedy = "copy in what the link leads to, or name that as the source"
        raise DataError("data.source", str(source), rule, remedy)
    if strange := [file.name for file in corpus.files if any("\ud800" <= letter <= "\udfff" for letter in file.name)]:
        rule = f"names of files that travel with a job are UTF-8, and {strange[0]!r} is not"
        raise DataError("data.source", str(source), rule, "rename it, or name a path on the cluster")
