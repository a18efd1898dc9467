"""What the balancer needs to know of a job, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

from backends.chip import load_chip
from balancer.completion.completion import complete
from balancer.completion.idle import Idle, idle_chips
from balancer.cost.times import Times, datasheet_times
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import LegalTp, Workload
from balancer.memory.need import memory_need
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.search import search
from balancer.simulate.simulate import Prediction, simulate
from hetero.errors import explains_itself
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.planning.links import NOTHING_PROBED, Probed, link_spec, unknown_links
from hetero.job.planning.silence import check_silence
from hetero.models.registry import architecture
from hetero.monitoring.table import PoolLabel

UsableBytes = Mapping[str, int]
"""By pool, what its chips have said that they have free."""


@dataclass(frozen=True)
class Planned:
    """A completed plan, what is expected of it, the plans that lost, each with the reason, the chips that it leaves
    idle, and what else a person should know of it."""

    job: Job
    plan: Plan
    prediction: Prediction
    runners_up: Sequence[tuple[Plan, Prediction, str]] = ()
    idle: Sequence[Idle] = ()
    assumed: Sequence[str] = ()

    @property
    def notes(self) -> list[str]:
        """In words."""
        return [*map(str, self.idle), *self.assumed]

    def memory_bytes(self, pipeline: int, stage: int) -> int:
        """What one chip of a stage needs."""
        return memory_need(self.plan, (pipeline, stage), self.prediction.scenario.problem).total


def plan_job(
    job: Job,
    times: Times | None = None,
    given: Plan | None = None,
    probed: Probed = NOTHING_PROBED,
    usable_bytes: UsableBytes = MappingProxyType({}),
) -> Planned:
    """The plan of a job: `given`, or the one in the job file, or the best that the balancer finds.

    `times`, `probed` and `usable_bytes` are measurements; without them the chips' datasheets are believed, and links
    that the job file does not describe are plain ones. Raises the balancer's errors, and JobError where its steps would
    be taken for hangs.
    """
    planned = _planned(job, times, given, probed, usable_bytes)
    if job.time_scale != "auto":
        check_silence(job, planned.prediction, job.time_scale)
    return planned


def _planned(job: Job, times: Times | None, given: Plan | None, probed: Probed, usable_bytes: UsableBytes) -> Planned:
    asked = problem(job, times, probed, usable_bytes)
    wanted = given or _written(job)
    if wanted is None:
        found = search(asked)
        plan = _named(job, found.plan)
        assumed = _assumed_links(job, asked.topology, probed)
        return Planned(job, plan, found.prediction, found.runners_up, found.idle, assumed)
    plan = _named(job, complete(wanted, asked))
    return Planned(job, plan, simulate(plan, asked), idle=idle_chips(plan, asked.topology, asked.legal_tp))


def check_written_plan(job: Job) -> None:
    """Raises JobError where the plan in the job file cannot be obeyed."""
    plan = _written(job)
    if plan is None or job.unidentified:
        return
    try:
        complete(plan, Problem(topology(job), workload(job), legal_tp=legal_tp(job)))
    except Exception as error:
        if not explains_itself(error):
            raise
        key = str(error.key)  # type: ignore[attr-defined]
        raise JobError.at(key if key.startswith("pools.") else f"balance.{key}", error) from None


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


def _written(job: Job) -> Plan | None:
    if job.balance.pipelines is None:
        return None
    return Plan(pipelines=job.balance.pipelines, schedule=job.balance.schedule)


def _assumed_links(job: Job, chips: Topology, probed: Probed) -> list[str]:
    """Those that a run would measure before it plans, and that nobody has measured yet."""
    assumed = [chips.link(*ends) for ends in unknown_links(job) if probed.figures(*ends) is None]
    return [
        f"the link between {' and '.join(link.between)} is taken as {link.bytes_per_s * 8e-9:g} Gbit/s with a round "
        f"trip of {link.latency_s * 2e3:g} ms: a run measures what bridge.links does not say of it"
        for link in assumed
    ]


def _named(job: Job, plan: Plan) -> Plan:
    return plan.model_copy(update={"job_fingerprint": job.fingerprint()})


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
