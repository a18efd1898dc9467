"""What the balancer needs to know of a job, and the plan that a job asks for by hand."""

from __future__ import annotations

from collections.abc import Callable

from backends.chip import load_chip
from balancer.plan import Plan, complete
from balancer.topology import LinkSpec, PoolSpec, Topology
from balancer.workload import Workload
from hetero.job.job import Job
from hetero.models.registry import architecture


def topology(job: Job) -> Topology:
    """Pools and links of a job, by datasheet and job file."""
    return Topology(
        pools=tuple(_pool(job, name) for name in job.pools),
        links=tuple(
            LinkSpec(between=link.between, bytes_per_s=link.gbit_per_s * 1e9 / 8, latency_s=link.rtt_ms / 2e3)
            for link in job.bridge.links
        ),
    )


def workload(job: Job) -> Workload:
    """The job's model as the balancer sees it: numbers per unit."""
    dimensions = job.model.resolve()
    model = architecture(dimensions.family)
    return model.workload(dimensions, job.data.seq_len, job.train.global_batch, job.train.precision)


def legal_tp(job: Job) -> Callable[[int], str | None]:
    """Why the model cannot be split over a number of chips, or None where it can."""
    dimensions = job.model.resolve()
    model = architecture(dimensions.family)
    return lambda tp: model.legal_tp(dimensions, tp)


def manual_plan(job: Job) -> Plan | None:
    """The job's own plan, completed and checked, or None in mode auto. Raises PlanError."""
    if job.balance.mode == "auto":
        return None
    return completed(
        job, Plan(pipelines=job.balance.pipelines, schedule=job.balance.schedule, job_fingerprint=job.fingerprint())
    )


def completed(job: Job, plan: Plan) -> Plan:
    """Any plan for this job with replicas, chips, warm-up and owners filled in. Raises PlanError where it is illegal."""
    return complete(plan, topology(job), workload(job), legal_tp=legal_tp(job))


def _pool(job: Job, name: str) -> PoolSpec:
    pool = job.pools[name]
    chip = load_chip(pool.chip)
    return PoolSpec(
        name=name,
        family=pool.family,
        chip=chip,
        count=pool.count,
        chips_per_host=pool.chips_per_host or pool.count,
        tp=None if pool.tp == "auto" else pool.tp,
        memory_bytes=chip.memory_bytes,
        precision=job.precision(name),
        emulated=pool.emulate is not None,
        world=None,
    )
