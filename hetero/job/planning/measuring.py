"""Before the plan: how slow emulation must be to be safe on this machine now, and what chips and links really do, which
is kept between runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from balancer.cost.times import Times, datasheet_times
from balancer.plan.plan import Plan
from hetero.cluster.fleet import host_id
from hetero.cluster.session import Session
from hetero.job.job import Job
from hetero.job.planning.cache import MeasurementCache, Row
from hetero.job.planning.links import NOTHING_PROBED, Probed, unknown_links
from hetero.job.planning.problem import legal_tp, topology, workload
from hetero.words.spec import CalibrationSpec

SAFETY = 1.5
"""Emulated actions are given this many times the bare arithmetic's time, measured with all ranks at work at once."""
_LOOKS = 5  # at the bare arithmetic, of which the median counts


@dataclass(frozen=True)
class Measurements:
    """`times` are None where a plan is given, which leaves nothing to choose by them; `rows` are what they are made
    from. `probed` are the links that the job file does not describe."""

    time_scale: float
    times: Times | None
    rows: Sequence[Row] = ()
    probed: Probed = NOTHING_PROBED


def measure(
    job: Job, session: Session, given: Plan | None, tell: Callable[[str], None] = lambda note: None
) -> Measurements:
    """Takes a second or two, and some for each unknown link, more where it is long; the next time a second for emulated
    chips and nothing for the others, unless job, pools or hosts have changed. `tell` hears why nothing is kept for
    that, if nothing is."""
    cache = MeasurementCache(tell)
    sizes = {name: _tp_sizes(job, name, given) for name in job.pools}
    scale = _time_scale(job, session, sizes)
    if given is not None:
        return Measurements(scale, None, probed=Probed(_probe(job, session, cache), scale))
    rows = _calibrate(job, session, cache, sizes, scale)
    times = Times.from_measurements(rows, otherwise=datasheet_times(topology(job), workload(job)))
    return Measurements(scale, times, rows, Probed(_probe(job, session, cache), scale))


def _time_scale(job: Job, session: Session, sizes: Mapping[str, Sequence[int]]) -> float:
    if not job.emulated:
        return 1.0
    if job.time_scale != "auto":
        return float(job.time_scale)
    largest = {name: tuple(found[-1:]) for name, found in sizes.items()}
    rows = session.calibrate(_spec(job, session, largest, None, _LOOKS))
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


def _tp_sizes(job: Job, name: str, given: Plan | None) -> tuple[int, ...]:
    """Every size that the pool's stages may take."""
    if given is not None:
        used = {stage.tp for pipeline in given.pipelines for stage in pipeline.stages if stage.pool == name}
        return tuple(sorted(used))
    illegal = legal_tp(job)
    return tuple(tp for tp in topology(job).pool(name).tp_sizes() if illegal(tp) is None)


def _calibrate(
    job: Job, session: Session, cache: MeasurementCache, sizes: Mapping[str, Sequence[int]], time_scale: float
) -> Sequence[Row]:
    """What chips take, which is told without the scale that emulated ones are slowed by."""
    spec = _spec(job, session, sizes, time_scale)
    nodes = [session.node(host.id) for host in session.fleet.hosts]
    unscaled = spec.model_copy(update={"time_scale": 1.0}).model_dump(mode="json")
    return cache.rows([unscaled, nodes, os.cpu_count()], lambda: session.calibrate(spec))


def _spec(
    job: Job, session: Session, sizes: Mapping[str, Sequence[int]], time_scale: float | None, repeats: int = 3
) -> CalibrationSpec:
    return CalibrationSpec(
        model=job.model.resolve(),
        tuning=job.train.tuning,
        pools={pool.name: pool for pool in session.fleet.pools},
        tensor_parallel={name: tuple(found) for name, found in sizes.items()},
        seq_len=job.data.seq_len,
        micro_batch=job.train.micro_batch,
        packed=job.packs,
        precisions={name: job.precision_of(name) for name in job.pools},
        repeats=repeats,
        time_scale=time_scale,
    )


def _probe(job: Job, session: Session, cache: MeasurementCache) -> list[Row]:
    """Both directions of each unknown link, between the first hosts of its pools."""
    rows = []
    for link in unknown_links(job):
        ends = [[pool, session.node(host_id(pool, 0)), session.fleet.hosting[pool].interface] for pool in link]
        how = session.way(*link), session.fleet.link(*link).streams
        rows += cache.rows([ends, *how], partial(session.probe, [link]))
    return rows
