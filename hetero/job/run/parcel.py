"""What travels with a job to a cluster: its file, its local data, and our packages, in one folder."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
from pathlib import Path

from backends import core_schema
from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN, BYTES, MODEL
from hetero.data.records.formats import format_of
from hetero.data.tokenizing.directory import FILES, TOKENIZER
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
    data = job.unmasked()
    check_told(data)
    if isinstance(job.data.source, str):
        data["data"]["source"], note = _packed(job.data.source, folder, Path("data"))
    else:
        packed = [_packed(one.source, folder, Path("data", str(n))) for n, one in enumerate(job.data.source)]
        for said, (place, _) in zip(data["data"]["source"], packed, strict=True):
            said["source"] = place
        note = "; ".join(filter(None, (note for _, note in packed)))
    data["data"]["tokenizer"] = _packed_tokenizer(job.data.tokenizer, folder)
    with private_files():
        (folder / JOB_FILE).write_text(core_schema.dump(data), encoding="utf-8")
    for package in PACKAGES:
        shutil.copytree(_home(package), folder / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return note


def _packed(source: str, folder: Path, below: Path) -> tuple[str, str]:
    """Where a source is on the cluster, and in words what of it was left out."""
    path = os.path.expanduser(source)  # a home that is not known here is one there
    if source == BUILT_IN or not (os.path.exists(path) or glob.glob(path, recursive=True)):
        return source, ""
    corpus = Corpus.of(source)
    if format_of(source, corpus.files, "auto") == "megatron" and not os.path.isdir(path):
        rule = "is one of the two files of a Megatron data set, which travels as a folder alone"
        raise JobError("data.source", source, rule, "name the folder that holds both, or a path on the cluster")
    return _pack_data(corpus, Path(path), folder, below), corpus.note


def _packed_tokenizer(said: str, folder: Path) -> str:
    """Where a tokenizer is on the cluster."""
    there = Path(os.path.expanduser(said))
    if said in (BYTES, MODEL) or not (there / TOKENIZER).is_file():
        return said
    target = Path("tokenizer")
    (folder / target).mkdir()
    for name in FILES:
        if (there / name).is_file():
            shutil.copyfile(there / name, folder / target / name)
    return str(target)


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _pack_data(corpus: Corpus, source: Path, folder: Path, below: Path) -> str:
    """Copies the files under the names that they have in the source; returns its path below `folder`."""
    _check_portable(corpus, source)
    is_file = source.is_file()
    target = below / ((source.resolve().name if source.exists() else "") or "text")
    for file in corpus.files:
        place = folder / target if is_file else folder / target / file.name
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
