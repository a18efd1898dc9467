"""Chips that a job file leaves to say themselves what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends import probe
from backends.errors import ChipError
from backends.identify import AUTO, identify, sheets_of
from backends.probe import Detection
from hetero.cluster.options import PoolOptions
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.planning.planning import check_written_plan

Ask = Callable[[Mapping[str, PoolOptions]], Mapping[str, Detection]]


def ask_here(pools: Mapping[str, PoolOptions]) -> dict[str, Detection]:
    """What the chips of this host answer each pool's own interpreter. Takes seconds."""
    return {name: probe.ask(pool.family, pool.env.python, pool.env.vars) for name, pool in pools.items()}


def identified(job: Job, ask: Ask = ask_here) -> Job:
    """The job with the chip of every pool named, by what its chips answer.

    Raises JobError where they cannot be asked, or have no data sheet, or not that which the job needs."""
    if not job.unidentified:
        return job
    answers = ask(unidentified_pools(job))
    return with_chips(job, {name: chip_of(name, job.pools[name], found) for name, found in answers.items()})


def unidentified_pools(job: Job) -> dict[str, PoolOptions]:
    return {name: job.pools[name] for name in job.unidentified}


def with_chips(job: Job, named: Mapping[str, str]) -> Job:
    """Checked as if the job file had these names."""
    data = job.unmasked()
    for pool, chip in named.items():
        data["pools"][pool]["chip"] = chip
    job = Job.model_validate(data)
    check_written_plan(job)
    return job


def chip_of(name: str, pool: PoolOptions, found: Detection) -> str:
    """Which chip a pool has whose chips gave this answer."""
    key = f"pools.{name}.chip"
    if not found.chips:
        rule = f"no chip of family {pool.family} is there to say what it is: {found.problem}"
        raise JobError(key, AUTO, rule, f"name it, which is one of {', '.join(c.name for c in sheets_of(pool.family))}")
    try:
        return identify(pool.family, found.names)
    except ChipError as error:
        raise JobError.at(key, error) from None
