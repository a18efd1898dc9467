"""Brings a run directory from a cluster to this machine, over nothing but the job server."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs.jobs import JobServer, shell_path
from hetero.cluster.jobs.unpack import Refused, TooMuch, unpack
from hetero.private import private_files

BEGIN, END = "-----BEGIN RUN DIRECTORY-----", "-----END RUN DIRECTORY-----"
BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")
LEFT_THERE = ("./checkpoints", "./data", "./.claim-*")
"""Large, or of use on the cluster only."""
PATIENCE_S = 120.0
MOST_BYTES = 1 << 30
MARK = ".fetched"
"""In a copy: of which job it is one."""


def fetch(server: JobServer, id_: str, folder: Path, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Copies the job's run directory into `folder`, which is empty or holds an earlier copy; returns the files.

    Checkpoints and tokens stay on the cluster, and so do links. All comes or nothing. Raises ClusterError if there is
    nothing to fetch, if it is more than `most_bytes`, or if the folder holds anything else."""
    job = server.job(id_)
    with _explained(folder, id_):
        _check_own(folder, id_)
    archive = _archive(server.read(_command(job.run_dir, most_bytes), PATIENCE_S), id_, job.run_dir)
    with private_files(), _explained(folder, id_):
        if len(archive) > _letters(most_bytes):
            raise TooMuch(f"{most_bytes / 2**30:g} GiB")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(f"{id_}\n", encoding="utf-8")
        return _unpack(archive, folder, most_bytes)


def _letters(most_bytes: int) -> int:
    """Of an archive in base64 that may hold so much; no more are sent."""
    return most_bytes * 3 // 2 + (1 << 20)


def _command(run_dir: str, most_bytes: int = MOST_BYTES) -> str:
    """Markers are put together by the shell, so that the command's own text in the log is none. The wait lets Ray write
    that first; it would stand in the middle of ours."""
    excluded = " ".join(f"--exclude='{path}'" for path in LEFT_THERE)
    begin, end = (f"printf '%s%s\\n' {mark[:5]} '{mark[5:]}'" for mark in (BEGIN, END))
    sent = _letters(most_bytes) * 80 // 76 + 100  # with the ends of lines
    tar = f"tar -c -z --format=gnu {excluded} ."
    return f"cd {shell_path(run_dir)} && sleep 1 && {begin} && {tar} | base64 | head -c {sent} && echo && {end}"


def _archive(log: str, id_: str, run_dir: str) -> str:
    """The archive in base64, as it stands in the log."""
    lines = log.splitlines()
    if BEGIN not in lines:
        rule = f"its run directory {run_dir} is not there (yet): {lines[-1] if lines else 'no word from the cluster'}"
        raise ClusterError("JOB", id_, rule, "look into hetero jobs logs; a job that was refused leaves nothing")
    if END not in lines:
        raise ClusterError("JOB", id_, f"{run_dir} was not sent to its end", "try again")
    return "".join(filter(BASE64.fullmatch, lines[lines.index(BEGIN) + 1 : lines.index(END)]))


def _check_own(folder: Path, id_: str) -> None:
    """Raises ClusterError where the folder holds what is no copy of this job: nothing of a user's is overwritten."""
    mark = folder / MARK
    if mark.is_file() and mark.read_text(encoding="utf-8", errors="replace").strip() == id_:
        return
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        rule = f"holds something else than a copy of {id_}"
        raise ClusterError("--to", str(folder), rule, "name another folder, or move that one away")


def _unpack(archive: str, folder: Path, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Unpacks beside the files of the folder, then puts each in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{MARK}-", dir=folder) as fresh:
        names = [name for name in unpack(base64.b64decode(archive), Path(fresh), most_bytes) if str(name) != MARK]
        for name in names:
            place = (folder / name).parent
            if not place.resolve().is_relative_to(folder.resolve()):
                raise Refused(f"a link in the folder leads {name} out of it")
            place.mkdir(parents=True, exist_ok=True)
            os.replace(Path(fresh, name), folder / name)
    return sorted(folder / name for name in names)


@contextlib.contextmanager
def _explained(folder: Path, id_: str) -> Iterator[None]:
    try:
        yield
    except TooMuch as error:
        rule = f"its run directory unpacks to more than {error}"
        remedy = "if you trust the cluster, allow more with hetero jobs fetch --most GIB"
        raise ClusterError("JOB", id_, rule, remedy) from error
    except (Refused, binascii.Error) as error:
        raise ClusterError("fetch", str(folder), f"what came is damaged ({error})", "try again") from error
    except OSError as error:
        rule = f"a copy cannot be written there ({error.strerror or error})"
        raise ClusterError("--to", str(folder), rule, "name another folder") from error
