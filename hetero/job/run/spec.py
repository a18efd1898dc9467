"""What a job's ranks are told."""

from __future__ import annotations

from pathlib import Path

from balancer.plan.plan import Plan
from hetero.checkpoint.address import Location
from hetero.cluster.fleet import FleetLink, FleetSpec
from hetero.data.source import Prepared
from hetero.job.job import Job
from hetero.job.planning.links import NOTHING_PROBED, Probed
from hetero.job.planning.problem import topology
from hetero.words.spec import RunSpec


def run_spec(
    job: Job,
    fleet: FleetSpec,
    plan: Plan,
    text: Prepared,
    time_scale: float,
    *,
    checkpoints: Location | None = None,
    resume: tuple[Location, int] | None = None,
    live: int | None = None,
    directory: bool = False,
) -> RunSpec:
    """One epoch of the job. `checkpoints` is where to save, `resume` the folder and step of what to begin from; or it
    goes on from what the ranks hold after `live` steps. Saves are a model's `directory` too if asked for."""
    folder, start = (None, live) if live is not None else resume or (None, 0)
    weights = None if folder or live is not None else job.model.weights
    state = "live" if live is not None else "checkpoint" if folder else "weights" if weights else "initial"
    return RunSpec(
        epoch=plan.epoch,
        model=job.model.resolve(),
        train=job.train,
        text=text.told(job.data.seq_len),
        plan=plan,
        pools={pool.name: pool for pool in fleet.pools},
        bridge=job.bridge,
        start=start,
        steps=job.train.steps,
        time_scale=time_scale,
        checkpoint_folder=_absolute(checkpoints) if checkpoints else None,
        checkpoint_every=job.checkpoint.every,
        checkpoint_directory=directory,
        state=state,
        weights_folder=weights,
        resume_folder=_absolute(folder) if folder else None,
        trace_every=job.monitor.trace_every,
        evaluation=job.eval,
    )


def _absolute(place: Location) -> str:
    return str(place.resolve() if isinstance(place, Path) else place)


def fleet_links(job: Job, time_scale: float = 1.0, probed: Probed = NOTHING_PROBED) -> list[FleetLink]:
    """Every link with its transport. One with an emulated end keeps the pace that the job file gives it, scaled; one
    that was probed has as many streams as were found to fill it."""
    links = []
    for link in topology(job).links:
        a, b = link.between
        said = job.bridge.link(a, b)
        emulated = any(job.pools[end].emulate is not None for end in (a, b))
        paced = emulated and (said.gbit_per_s is not None or said.rtt_ms is not None)
        rate = link.bytes_per_s / time_scale if paced else None
        delay_s = link.latency_s * time_scale if paced else 0.0
        how = job.bridge.transport_between(a, b), rate, delay_s, job.bridge.encryption_between(a, b)
        streams = 1 if paced else job.bridge.streams_between(a, b) or probed.streams(a, b)
        links.append(FleetLink((a, b), *how, streams=streams))
    return links
