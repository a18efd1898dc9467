"""Chips that a job file leaves to say themselves what they are."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from backends import probe
from backends.errors import ChipError
from backends.identify import AUTO, identify, sheets_of
from backends.probe import Finding
from hetero.cluster.instructions import News
from hetero.cluster.options import PoolOptions, fleet_of
from hetero.interrupts import sigmask
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.planning import check_written_plan

Heard = Callable[[News], None]


def _ignore(_: News) -> None:
    pass


def identified(job: Job, address: str | None = None, heard: Heard = _ignore) -> Job:
    """The job with the chip of every pool named, by what its chips answer on this host, or on the cluster at `address`.
    `heard` is told if it waits for that.

    Raises JobError where they cannot be asked, or have no data sheet, or not that which the job needs."""
    if not job.unidentified:
        return job
    answers = ask(job, address, heard)
    return with_chips(job, {name: chip_of(name, job.pools[name], found) for name, found in answers.items()})


def ask(job: Job, address: str | None = None, heard: Heard = _ignore) -> dict[str, Finding]:
    """What the chips of those pools answer that have no name. Takes seconds."""
    pools = {name: job.pools[name] for name in job.unidentified}
    if not pools or address is None:
        return {name: probe.ask(pool.family, pool.env.python, pool.env.vars) for name, pool in pools.items()}
    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):  # in the threads of Ray
        from hetero.cluster.asking import ask_cluster
        from hetero.cluster.ray_runtime import ray_runtime
    with ray_runtime(address):
        return ask_cluster(fleet_of(pools, local=False), heard)


def with_chips(job: Job, named: Mapping[str, str]) -> Job:
    """Checked as if the job file had these names."""
    data = job.unmasked()
    for pool, chip in named.items():
        data["pools"][pool]["chip"] = chip
    job = Job.model_validate(data)
    check_written_plan(job)
    return job


def chip_of(name: str, pool: PoolOptions, found: Finding) -> str:
    """Which chip a pool has whose chips gave this answer."""
    key = f"pools.{name}.chip"
    if not found.chips:
        rule = f"no chip of family {pool.family} is there to say what it is: {found.problem}"
        raise JobError(key, AUTO, rule, f"name it, which is one of {', '.join(c.name for c in sheets_of(pool.family))}")
    try:
        return identify(pool.family, found.names)
    except ChipError as error:
        raise JobError.at(key, error) from None
