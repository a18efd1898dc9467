"""What the balancer needs to know of a job, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType

from backends.chip import load_chip
from balancer.cost.times import Times, datasheet_times
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import LegalTp, Workload
from balancer.problem import Problem
from hetero.job.job import Job
from hetero.job.planning.links import NOTHING_PROBED, Probed, link_spec
from hetero.models.registry import architecture
from hetero.monitoring.table import PoolLabel

UsableBytes = Mapping[str, int]
"""By pool, what its chips have said that they have free."""


def problem(
    job: Job,
    times: Times | None = None,
    probed: Probed = NOTHING_PROBED,
    usable_bytes: UsableBytes = MappingProxyType({}),
) -> Problem:
    """What the job asks the balancer; without `times`, by the chips' datasheets."""
    chips, work = topology(job, probed, usable_bytes), workload(job)
    times = times or datasheet_times(chips, work)
    return Problem(chips, work, times, legal_tp(job), job.balance, job.train.micro_batch)


def topology(job: Job, probed: Probed = NOTHING_PROBED, usable_bytes: UsableBytes = MappingProxyType({})) -> Topology:
    """Pools and links of a job, by datasheet and job file; a link that is not described there is as it was measured,
    else a plain one. A chip's memory is what the chip itself has said, where it has."""
    return Topology(
        pools=tuple(_pool(job, name, usable_bytes.get(name)) for name in job.pools),
        links=tuple(link_spec(job, a, b, probed) for a, b in combinations(job.pools, 2)),
        bucket_bytes=job.bridge.sync_bucket_bytes,
    )


def workload(job: Job) -> Workload:
    """The job's model as the balancer sees it: numbers per unit."""
    model = architecture(job.model.resolve())
    work = model.workload(job.data.seq_len, job.train.global_batch, job.train.precision)
    return replace(work, update=job.train.optimizer.update)


def legal_tp(job: Job) -> LegalTp:
    """Why the model cannot be split over a number of chips, or None where it can."""
    return architecture(job.model.resolve()).legal_tp


def pool_labels(job: Job) -> list[PoolLabel]:
    """How the pools are called on the screen."""
    return [PoolLabel(name, pool.chip, pool.count, pool.emulate is not None) for name, pool in job.pools.items()]


def _pool(job: Job, name: str, usable_bytes: int | None) -> PoolSpec:
    pool = job.pools[name]
    chip = load_chip(pool.chip)
    return PoolSpec(
        name=name,
        family=pool.family,
        chip=chip,
        count=pool.count,
        chips_per_host=pool.chips_per_host or pool.count,
        tp=None if pool.tp == "auto" else pool.tp,
        memory_bytes=chip.usable_bytes if usable_bytes is None else usable_bytes,
        **({} if usable_bytes is None else {"memory_told_by": "the chip itself"}),
        precision=job.precision_of(name),
        paced_as=job.paced_as(name),
    )
