"""Brings a run directory from a cluster to this machine, over nothing but the job server."""

from __future__ import annotations

import base64
import binascii
import io
import re
import tarfile
import zlib
from pathlib import Path

from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs import JobServer, shell_path

BEGIN, END = "-----BEGIN RUN DIRECTORY-----", "-----END RUN DIRECTORY-----"
BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")
LEFT_THERE = ("./checkpoints", "./data", "./.claim-*")
"""Large, or of use on the cluster only."""
PATIENCE_S = 120.0


def fetch(server: JobServer, id_: str, folder: Path) -> list[Path]:
    """Copies the job's run directory into `folder`, which may hold an earlier copy; returns the files.

    Checkpoints and tokens stay on the cluster. Raises ClusterError if there is nothing to fetch."""
    job = server.job(id_)
    return _unpack(_archive(server.read(_command(job.run_dir), PATIENCE_S), id_, job.run_dir), folder)


def _command(run_dir: str) -> str:
    """Markers are put together by the shell, so that the command's own text in the log is none. The wait lets Ray write
    that first; it would stand in the middle of ours."""
    excluded = " ".join(f"--exclude='{path}'" for path in LEFT_THERE)
    begin, end = (f"printf '%s%s\\n' {mark[:5]} '{mark[5:]}'" for mark in (BEGIN, END))
    return f"cd {shell_path(run_dir)} && sleep 1 && {begin} && tar -c -z {excluded} . | base64 && {end}"


def _archive(log: str, id_: str, run_dir: str) -> str:
    """The archive in base64, as it stands in the log."""
    lines = log.splitlines()
    if BEGIN not in lines:
        rule = f"its run directory {run_dir} is not there (yet): {lines[-1] if lines else 'no word from the cluster'}"
        raise ClusterError("JOB", id_, rule, "look into hetero jobs logs; a job that was refused leaves nothing")
    if END not in lines:
        raise ClusterError("JOB", id_, f"{run_dir} was not sent to its end", "try again")
    return "".join(filter(BASE64.fullmatch, lines[lines.index(BEGIN) + 1 : lines.index(END)]))


def _unpack(archive: str, folder: Path) -> list[Path]:
    """Writes the files, refusing names that lead out of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive)), mode="r:gz") as files:
            files.extractall(folder, filter="data")
            return sorted(folder / member.name for member in files.getmembers() if member.isfile())
    except (tarfile.TarError, EOFError, zlib.error, binascii.Error) as error:
        raise ClusterError("fetch", str(folder), f"what came is damaged ({error})", "try again") from error
