"""One step of a plan, on ranks of this host that compute as their families do on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backends.options import EmulateOptions
from backends.sizes import GIB
from balancer.completion.completion import complete
from balancer.plan.plan import Plan
from hetero.align.errors import AlignError
from hetero.align.given_text import GivenText
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import EnvOptions, PoolOptions, fleet_of
from hetero.cluster.session import Session
from hetero.job.checks import check_pool
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.job.run.spec import fleet_links
from hetero.words.options import EvalOptions
from hetero.words.spec import Capture, RunSpec

WATCHED = "hetero.align.watched_rank:main"
NO_PACE = 1e-9
"""A time scale at which an emulated chip never sleeps."""
MOST_RANKS = 64
AMPLE_GIB = 1 << 30
"""Of an emulated chip: all is in this host's memory, and all of the model trains, where the job may train less."""
HELD_OUT_EVERY = 2
"""As late as that what is held out would be looked at: behind the only step."""


def emulated(job: Job, plan: Plan, precision: str | None) -> Job:
    """The job on emulated chips of the pools that the plan uses, computing in `precision`, if that is given, where all
    of the model trains. Raises JobError where they cannot."""
    pools = {name: _emulated(pool, precision) for name, pool in job.pools.items() if name in plan.pools()}
    plain = {"freeze": (), "lora": None, "shadow": None}
    train = job.train.model_copy(update={"precision": precision or job.train.precision, **plain})
    for name, pool in pools.items():
        check_pool(name, pool, train.precision)
    if (ranks := sum(pool.count for pool in pools.values())) > MOST_RANKS:
        rule = f"its pools have {ranks} chips, and each is a process of this host: {MOST_RANKS} at most"
        raise AlignError("--against", f"{len(pools)} pools", rule, "compare with a plan of the same kind on fewer")
    return job.model_copy(update={"pools": pools, "train": train})


def _emulated(pool: PoolOptions, precision: str | None) -> PoolOptions:
    networks = {"network_gbit_per_s": None, "fabric_gbit_per_s": None}
    changed = {"emulate": EmulateOptions(memory_gib=AMPLE_GIB), "env": EnvOptions(), "interface": None, **networks}
    return pool.model_copy(update=changed if precision is None else {**changed, "precision": None})


def completed(job: Job, plan: Plan) -> Plan:
    """The plan of an emulated job as its ranks obey it. Raises PlanError where it is none of the job's."""
    return complete(plan, problem(job, usable_bytes=dict.fromkeys(job.pools, AMPLE_GIB * GIB)))


def run_step(job: Job, plan: Plan, text: GivenText, seen: Path) -> None:
    """The first step of a completed plan, from the weights of the job's model. Ranks write into `seen` what their units
    give (`SeenStep`) and the gradients of what they own (`captured_gradients`)."""
    fleet = replace(fleet_of(job.pools, fleet_links(job, NO_PACE)), programs=Programs(rank=WATCHED))
    spec = RunSpec(
        epoch=plan.epoch,
        model=job.model.resolve(),
        train=job.train,
        text=text.told,
        plan=plan,
        pools={pool.name: pool for pool in fleet.pools},
        bridge=job.bridge,
        steps=HELD_OUT_EVERY + 1,
        time_scale=NO_PACE,
        evaluation=EvalOptions(every=HELD_OUT_EVERY, batches=job.eval.batches) if text.held_out else EvalOptions(),
        state="weights",
        weights_folder=job.model.weights,
        capture=Capture(folder=str(seen), steps=(0,)),
    )
    with Session.start(fleet, LocalAgents()) as session:
        session.configure(spec)
        session.run(until=1)
