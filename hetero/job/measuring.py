"""Before the plan: how slow emulation must be to be safe, and what the pools' chips really do. Cached between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancer.cost import Times, datasheet_times
from balancer.plan import Plan
from hetero.cluster.session import Session
from hetero.engine.spec import CalibrationSpec, PoolRun
from hetero.job.job import Job
from hetero.job.planning import legal_tp, topology, workload

SAFETY = 2.0
"""Emulated actions are given this many times the bare arithmetic's time, measured with all ranks at work at once."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """`times` are None where a plan is given, which leaves nothing to choose by them; `rows` are what they are made
    from."""

    time_scale: float
    times: Times | None
    rows: Sequence[Row] = ()


def measure(job: Job, session: Session, given: Plan | None) -> Measured:
    """Takes a second or two, and nothing the next time, unless job, pools or hosts have changed."""
    sizes = {name: _tp_sizes(job, name, given) for name in job.pools}
    scale = _time_scale(job, session, sizes)
    if given is not None:
        return Measured(scale, None)
    rows = _calibrate(job, session, sizes, scale)
    times = Times.from_measurements(rows, otherwise=datasheet_times(topology(job), workload(job)))
    return Measured(scale, times, rows)


def _time_scale(job: Job, session: Session, sizes: Mapping[str, Sequence[int]]) -> float:
    if not job.emulated:
        return 1.0
    if job.time_scale != "auto":
        return float(job.time_scale)
    largest = {name: tuple(found[-1:]) for name, found in sizes.items()}
    rows = _calibrate(job, session, largest, None)
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
    job: Job, session: Session, sizes: Mapping[str, Sequence[int]], time_scale: float | None
) -> Sequence[Row]:
    spec = CalibrationSpec(
        dimensions=job.model.resolve(),
        pools={pool.name: PoolRun.model_validate(pool.run) for pool in session.fleet.pools},
        tensor_parallel={name: tuple(found) for name, found in sizes.items()},
        seq_len=job.data.seq_len,
        micro_batch=job.train.micro_batch,
        precision=job.train.precision,
        time_scale=time_scale,
    ).model_dump(mode="json")
    path = _cache() / f"{_key(spec, session)}.json"
    if path.exists():
        rows: list[Row] = json.loads(path.read_text())
        return rows
    rows = session.calibrate(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(rows))
    unfinished.replace(path)
    return rows


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hetero" / "calibration"


def _key(spec: Mapping[str, Any], session: Session) -> str:
    nodes = [session.node(host.id) for host in session.fleet.hosts]
    return hashlib.sha256(json.dumps([spec, nodes, os.cpu_count()], sort_keys=True).encode()).hexdigest()[:32]
