"""What the balancer needs to know of a job, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from math import inf
from types import MappingProxyType

from balancer.cost.times import Times, datasheet_times
from balancer.cost.topology import LinkSpec, PoolSpec, Topology
from balancer.cost.workload import LegalTp, Workload
from balancer.problem import Problem
from hetero.cluster.options import named_pools
from hetero.job.job import Job
from hetero.job.planning.links import NOTHING_PROBED, Probed, link_spec
from hetero.job.planning.profile import NOTHING_MEASURED, Profile
from hetero.models.registry import architecture
from hetero.words.pool import Pool

UsableBytes = Mapping[str, int]
"""By pool, what its chips have said that they have free."""


def problem(
    job: Job,
    times: Times | None = None,
    probed: Probed = NOTHING_PROBED,
    usable_bytes: UsableBytes = MappingProxyType({}),
    profile: Profile = NOTHING_MEASURED,
) -> Problem:
    """What the job asks the balancer; without `times`, by the chips' datasheets."""
    chips, work = topology(job, probed, usable_bytes, profile), workload(job)
    times = times or datasheet_times(topology(job), work)
    return Problem(chips, work, times, legal_tp(job), job.balance, job.train.micro_batch)


def topology(
    job: Job,
    probed: Probed = NOTHING_PROBED,
    usable_bytes: UsableBytes = MappingProxyType({}),
    profile: Profile = NOTHING_MEASURED,
) -> Topology:
    """Pools and links of a job, by datasheet and job file; a link that is not described there is as it was measured,
    else a plain one. A chip's memory is what the chip itself has said, where it has, and its rates are those of the
    profile. A host's network is taken to carry what its fastest link does, unless the job says it; emulated links are
    paced each by itself."""
    links = tuple(link_spec(job, a, b, probed) for a, b in combinations(job.pools, 2))
    pools = (_pool(job, pool, usable_bytes.get(pool.name)) for pool in named_pools(job.pools).values())
    known = [replace(pool, chip=profile.chip(pool.name, pool.chip)) for pool in pools]
    return Topology(
        pools=tuple(pool if job.pools[pool.name].emulate else _networked(job, pool, links) for pool in known),
        links=links,
        bucket_bytes=job.bridge.sync_bucket_bytes,
    )


def _networked(job: Job, pool: PoolSpec, links: Iterable[LinkSpec]) -> PoolSpec:
    said = job.pools[pool.name]
    rates = (link.bytes_per_s for link in links if pool.name in link.between)
    network = max(rates, default=inf) if said.network_gbit_per_s is None else said.network_gbit_per_s * 1e9 / 8
    fabric = None if said.fabric_gbit_per_s is None else said.fabric_gbit_per_s * 1e9 / 8
    return replace(pool, network_bytes_per_s=network, fabric_bytes_per_s=fabric)


def workload(job: Job) -> Workload:
    """The job's model as the balancer sees it: numbers per unit."""
    model = architecture(job.model.resolve(), job.train.tuning)
    work = model.workload(job.data.seq_len, job.train.global_batch, job.train.precision, job.packs)
    shadow = job.train.shadow.pool if job.train.shadow else None
    return replace(work, update=job.train.optimizer.update, shadow=shadow)


def legal_tp(job: Job) -> LegalTp:
    """Why the model cannot be split over a number of chips, or None where it can."""
    return architecture(job.model.resolve()).legal_tp


def _pool(job: Job, pool: Pool, usable_bytes: int | None) -> PoolSpec:
    tp = job.pools[pool.name].tp
    planned = pool.planned(job.precision_of(pool.name), None if tp == "auto" else tp, usable_bytes)
    if job.emulated:  # by whose time_scale the seconds would be multiplied that a real chip's kernels and host lose
        return replace(planned, chip=replace(planned.chip, matrix_efficiency=None))
    return planned
