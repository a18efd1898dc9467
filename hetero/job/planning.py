"""What the balancer needs to know of a job, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from backends.chip import load_chip
from balancer.cost import Times, datasheet_times
from balancer.memory import stage_bytes
from balancer.plan import Plan, complete
from balancer.search import search
from balancer.simulate import Prediction, simulate
from balancer.topology import LinkSpec, PoolSpec, Topology
from balancer.workload import Workload
from bridge.options import LinkOptions
from hetero.job.job import Job
from hetero.models.registry import architecture
from hetero.monitoring.table import PoolLabel


@dataclass(frozen=True)
class Planned:
    """A completed plan, what is expected of it, and the plans that lost, each with the reason."""

    job: Job
    plan: Plan
    prediction: Prediction
    runners_up: Sequence[tuple[Plan, Prediction, str]] = ()

    def memory_bytes(self, pipeline: int, stage: int) -> int:
        """What one chip of a stage needs."""
        precision = self.job.precision(self.plan.pipelines[pipeline].stages[stage].pool)
        return stage_bytes(workload(self.job), self.plan, pipeline, stage, precision).total


def plan_job(job: Job, times: Times | None = None, given: Plan | None = None) -> Planned:
    """The plan of a job: `given`, or the one in the job file, or the best that the balancer finds.

    `times` are measurements; without them the chips' datasheets are believed. Raises the balancer's errors.
    """
    chips, work = topology(job), workload(job)
    times = times or datasheet_times(chips, work)
    wanted = given or _written(job)
    if wanted is None:
        found = search(chips, work, times, job.balance, micro_batch=job.train.micro_batch, legal_tp=legal_tp(job))
        plan = _named(job, found.plan)
        return Planned(job, plan, found.prediction, found.runners_up)
    plan = _named(job, complete(wanted, chips, work, legal_tp(job)))
    return Planned(job, plan, simulate(plan, chips, work, times))


def topology(job: Job) -> Topology:
    """Pools and links of a job, by datasheet and job file; a link that is not described is a plain one."""
    described = {frozenset(link.between): link for link in job.bridge.links}
    pairs = list(combinations(job.pools, 2))
    return Topology(
        pools=tuple(_pool(job, name) for name in job.pools),
        links=tuple(_link(pair, described.get(frozenset(pair)) or LinkOptions(between=pair)) for pair in pairs),
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


def pool_labels(job: Job) -> list[PoolLabel]:
    """How the pools are called on the screen."""
    return [PoolLabel(name, pool.chip, pool.count, pool.emulate is not None) for name, pool in job.pools.items()]


def _written(job: Job) -> Plan | None:
    if job.balance.mode == "auto":
        return None
    return Plan(pipelines=job.balance.pipelines, schedule=job.balance.schedule)


def _named(job: Job, plan: Plan) -> Plan:
    return plan.model_copy(update={"job_fingerprint": job.fingerprint()})


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
    )


def _link(between: tuple[str, str], link: LinkOptions) -> LinkSpec:
    return LinkSpec(between, bytes_per_s=link.gbit_per_s * 1e9 / 8, latency_s=link.rtt_ms / 2e3)
