"""Before the plan: how slow emulation must be to be safe on this machine now, and what chips and links really do, which
is kept between runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from balancer.cost.times import Times, datasheet_times
from balancer.plan.plan import Plan
from hetero.cluster.fleet import host_id
from hetero.cluster.options import named_pools
from hetero.cluster.session import Session
from hetero.job.job import Job
from hetero.job.planning.cache import MeasurementCache, Row
from hetero.job.planning.links import NOTHING_PROBED, Probed, unknown_links
from hetero.job.planning.problem import legal_tp, topology, workload
from hetero.job.planning.profile import NOTHING_MEASURED, Profile
from hetero.words.spec import CalibrationSpec

SAFETY = 1.5
"""Emulated actions are given this many times the bare arithmetic's time, measured with all ranks at work at once."""
_LOOKS = 5  # at the bare arithmetic, of which the median counts
_QUICK, _THOROUGH = 3, 32  # repeats before a run, and of a profile
_MICRO_BATCHES = (1, 2, 4)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Measurements:
    """`times` are None where a plan is given, which leaves nothing to choose by them; `rows` are what they are made
    from. `probed` are the links that the job file does not describe."""

    time_scale: float
    times: Times | None
    rows: Sequence[Mapping[str, Any]] = ()
    probed: Probed = NOTHING_PROBED
    profile: Profile = NOTHING_MEASURED


def measure(job: Job, session: Session, given: Plan | None, tell: Tell = lambda note: None) -> Measurements:
    """Takes a second or two, and some for each unknown link, more where it is long; the next time a second for emulated
    chips and nothing for the others, unless job, pools or hosts have changed. What `profile` has found counts as
    measured. `tell` hears why nothing is kept for that, if nothing is."""
    cache = MeasurementCache(tell)
    scale = _time_scale(job, session, _sizes(job, given))
    if given is not None:
        return Measurements(scale, None, probed=Probed(_probe(job, session, cache), scale))
    spec, where = _spec(job, _sizes(job), scale, _QUICK), _where(session)
    kept = cache.kept(_subject(job), where) or cache.keep(_subject(job), where, session.calibrate(spec))
    found = Profile(kept.rows, where, kept.at)
    rows = found.units(job.train.micro_batch)
    return Measurements(scale, times(job, found), rows, Probed(_probe(job, session, cache), scale), found)


def profile(job: Job, session: Session, tell: Tell, again: bool = False) -> Profile:
    """All that a plan may be made by, which `measure` and `kept_profile` find from now on. Minutes at most; nothing
    where it is there already, unless it is to be measured `again`. `tell` hears how far it is."""
    cache, where, sizes = MeasurementCache(tell), _where(session), _sizes(job)
    kept = cache.kept(_subject(job), where)
    if kept is not None and not again and any("part" in row for row in kept.rows):
        return Profile(kept.rows, where, kept.at)
    tell("how slow emulated chips must be on this machine" if job.emulated else "units, by strategy and micro-batch")
    scale = _time_scale(job, session, sizes)
    others = [size for size in _MICRO_BATCHES if size <= job.train.global_batch]
    spec = _spec(job, sizes, scale, _THOROUGH).model_copy(update={"also": tuple(others), "strategies": True})
    if job.emulated:
        tell("units, by strategy and micro-batch")
    rows = session.calibrate(spec)
    tell("products, copies, updates, and the sums of groups")
    rows += session.rates(spec)
    tell("links")
    links = Probed(_probe(job, session, cache, again), scale).unscaled()
    kept = cache.keep(_subject(job), where, [*rows, *links])
    return Profile(kept.rows, where, kept.at)


def kept_profile(job: Job) -> Profile:
    """The newest that was measured for this job, wherever that was; nothing where nobody has measured it."""
    kept = MeasurementCache(lambda note: None).newest(_subject(job))
    return Profile(kept.rows, kept.where, kept.at) if kept else NOTHING_MEASURED


def times(job: Job, found: Profile) -> Times | None:
    """By what was measured, and by data sheets where nothing was; None where nothing was at all."""
    rows = found.units()
    return Times.from_measurements(rows, otherwise=datasheet_times(topology(job), workload(job))) if rows else None


def _time_scale(job: Job, session: Session, sizes: Mapping[str, Sequence[int]]) -> float:
    if not job.emulated:
        return 1.0
    if job.time_scale != "auto":
        return float(job.time_scale)
    largest = {name: tuple(found[-1:]) for name, found in sizes.items()}
    rows = session.calibrate(_spec(job, largest, None, _LOOKS))
    expected = datasheet_times(topology(job), workload(job))
    return SAFETY * max(_slowness(rows, name, expected) for name, pool in job.pools.items() if pool.emulate is not None)


def _slowness(rows: Sequence[Row], pool: str, expected: Times) -> float:
    """The arithmetic's time over the modelled time, of all units that the chip is modelled to work on."""
    mine = [row for row in rows if row["pool"] == pool]
    told = [expected.lookup(pool, row["tp"], row["kind"]) for row in mine]
    worked = [(row, time) for row, time in zip(mine, told, strict=True) if time.forward_s > 0]
    forward = sum(row["forward_s"] for row, _ in worked) / max(sum(time.forward_s for _, time in worked), 1e-12)
    backward = sum(row["backward_s"] for row, _ in worked) / max(sum(time.backward_s for _, time in worked), 1e-12)
    return max(forward, backward)


def _sizes(job: Job, given: Plan | None = None) -> dict[str, tuple[int, ...]]:
    """By pool, every size that its stages may take."""
    return {name: _tp_sizes(job, name, given) for name in job.pools}


def _tp_sizes(job: Job, name: str, given: Plan | None) -> tuple[int, ...]:
    if given is not None:
        used = {stage.tp for pipeline in given.pipelines for stage in pipeline.stages if stage.pool == name}
        return tuple(sorted(used))
    illegal = legal_tp(job)
    return tuple(tp for tp in topology(job).pool(name).tp_sizes() if illegal(tp) is None)


def _subject(job: Job) -> Any:
    """What is measured, as plain data: without the scale that emulated chips are slowed by."""
    return _spec(job, _sizes(job), 1.0, _QUICK).model_dump(mode="json")


def _where(session: Session) -> dict[str, Any]:
    """The machines, and what runs on them."""
    hosts = {host.id: [session.node(host.id), dict(session.software(host.id))] for host in session.fleet.hosts}
    return {"hosts": hosts, "cores": os.cpu_count()}


def _spec(job: Job, sizes: Mapping[str, Sequence[int]], time_scale: float | None, repeats: int) -> CalibrationSpec:
    return CalibrationSpec(
        model=job.model.resolve(),
        tuning=job.train.tuning,
        pools=named_pools(job.pools),
        tensor_parallel={name: tuple(found) for name, found in sizes.items()},
        seq_len=job.data.seq_len,
        micro_batch=job.train.micro_batch,
        packed=job.packs,
        precisions={name: job.precision_of(name) for name in job.pools},
        repeats=repeats,
        time_scale=time_scale,
    )


def _probe(job: Job, session: Session, cache: MeasurementCache, again: bool = False) -> list[Row]:
    """Both directions of each unknown link, between the first hosts of its pools."""
    rows = []
    for link in unknown_links(job):
        ends = [[pool, session.node(host_id(pool, 0)), session.fleet.hosting[pool].interface] for pool in link]
        how = session.way(*link), session.fleet.link(*link).streams
        rows += cache.rows([ends, *how], partial(session.probe, [link]), again)
    return rows
