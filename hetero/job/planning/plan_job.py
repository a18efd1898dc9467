"""The plan of a job, and what is expected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from balancer.completion.completion import complete
from balancer.completion.idle import Idle, idle_chips
from balancer.cost.times import Times
from balancer.cost.topology import Topology
from balancer.memory.memory import saved_bytes
from balancer.memory.need import memory_need
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.search import SearchResult, search
from balancer.simulate.band import Band, band
from balancer.simulate.simulate import Prediction, simulate
from hetero.errors import explains_itself
from hetero.job.dropout import dropout_notes
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.planning.links import NOTHING_PROBED, Probed, unknown_links
from hetero.job.planning.problem import UsableBytes, legal_tp, problem, topology, workload
from hetero.job.planning.profile import NOTHING_MEASURED, Profile
from hetero.job.planning.rounding import rounding_notes
from hetero.job.planning.silence import check_silence, silence_notes
from hetero.job.tokenizer import tokenizer_notes


@dataclass(frozen=True)
class Planned:
    """A completed plan, what is expected of it by the `profile` and by data sheets, the plans that lost, each with the
    reason, the chips that it leaves idle, and what else a person should know of it."""

    job: Job
    plan: Plan
    prediction: Prediction
    runners_up: Sequence[tuple[Plan, Prediction, str]] = ()
    idle: Sequence[Idle] = ()
    assumed: Sequence[str] = ()
    profile: Profile = NOTHING_MEASURED
    found: SearchResult | None = None
    """What the search says of its choice; None of a plan by hand."""

    @cached_property
    def band(self) -> Band | None:
        """Between which seconds a step lies; None where not all of it was measured."""
        return band(self.prediction, self.profile.noise())

    @property
    def notes(self) -> list[str]:
        """In words."""
        told = *tokenizer_notes(self.job.data, self.job.model), *dropout_notes(self.job.model)
        before = *told, *map(str, self.idle), *self.assumed
        return [*before, *silence_notes(self.job, self.prediction), *rounding_notes(self.job, self.plan)]

    def memory_bytes(self, pipeline: int, stage: int) -> int:
        """What one chip of a stage needs."""
        return memory_need(self.plan, (pipeline, stage), self.prediction.scenario.problem).total

    def host_bytes(self, pipeline: int, stage: int) -> int:
        """What it needs beside that of its host's memory, to update there and to save beside its steps."""
        asked = self.prediction.scenario.problem
        saved = saved_bytes(asked.workload, self.plan, pipeline, stage) if self.job.checkpoint.every else 0
        return memory_need(self.plan, (pipeline, stage), asked).host + saved


def plan_job(
    job: Job,
    times: Times | None = None,
    given: Plan | None = None,
    probed: Probed = NOTHING_PROBED,
    usable_bytes: UsableBytes = MappingProxyType({}),
    profile: Profile = NOTHING_MEASURED,
) -> Planned:
    """The plan of a job: `given`, or the one in the job file, or the best that the balancer finds.

    `times`, `probed`, `usable_bytes` and the rates of `profile` are measurements; without them the chips' datasheets
    are believed, and links that the job file does not describe are plain ones. Raises the balancer's errors, and
    JobError where its steps would be taken for hangs.
    """
    planned = replace(_planned(job, problem(job, times, probed, usable_bytes, profile), given, probed), profile=profile)
    if job.time_scale != "auto":
        check_silence(job, planned.prediction, job.time_scale)
    return planned


def _planned(job: Job, asked: Problem, given: Plan | None, probed: Probed) -> Planned:
    wanted = given or _written(job)
    if wanted is None:
        found = search(asked)
        plan = _named(job, found.plan)
        assumed = _assumed_links(job, asked.topology, probed)
        return Planned(job, plan, found.prediction, found.runners_up, found.idle, assumed, found=found)
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
