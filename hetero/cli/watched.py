"""A run to look at: a folder of this machine, or the copy of a job's that follows it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hetero.paths import local


@contextlib.contextmanager
def watched(run: str, address: str | None) -> Iterator[Path]:
    """The run directory. What is a folder here is one, whatever the environment says of clusters.

    Raises MonitorError where it is neither a folder nor, without an address, a job's name; ClusterError for a job that
    is not there."""
    folder = local(run, "RUN_DIR")
    if os.path.isdir(folder):
        yield folder
    elif address is None:
        raise no_run(run)
    else:
        from hetero.cluster.jobs.jobs import JobServer
        from hetero.cluster.jobs.mirror import mirrored

        with mirrored(JobServer(address), run) as copy:
            yield copy


def fetched(run: str, address: str | None) -> Path:
    """The run directory as it is now; a job's is brought to `runs/JOB`."""
    folder = local(run, "RUN_DIR")
    if os.path.isdir(folder):
        return folder
    if address is None:
        raise no_run(run)
    from hetero.cluster.jobs.fetch import fetch
    from hetero.cluster.jobs.jobs import JobServer

    folder = Path("runs") / run
    fetch(JobServer(address), run, folder)
    return folder


def no_run(run: str) -> Exception:
    from hetero.monitoring.errors import MonitorError

    remedy = "`hetero train` prints its folder; a job of a cluster needs --address http://HEAD:8265"
    return MonitorError("RUN_DIR", run, "must be the folder of a run", remedy)
