"""What the forwards and backwards of a pool are made of, by its plan and by what is known of its chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.cost.times import Times, datasheet_times, units_time
from balancer.cost.workload import Workload
from balancer.plan.plan import Plan, StagePlan
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.models.flops import masked_flops
from hetero.monitoring.waterfall import Computing

_Shares = Sequence[tuple[int, StagePlan]]
"""The stages of a pool, each with the sequences that it has in a step."""


@dataclass(frozen=True)
class PoolWork:
    """How the time of a pool's forwards and backwards divides, and `whole_square`: the FLOPs with all of attention's
    square over those that an MFU counts."""

    computing: Computing
    whole_square: float


def pool_work(job: Job, plan: Plan, calibrated: Sequence[Mapping[str, Any]]) -> dict[str, PoolWork]:
    """Of the pools that the plan uses. Emulated chips keep to their data sheets; of real ones only what a calibration
    measured is believed."""
    work = workload(job)
    sheets, measured = datasheet_times(topology(job), work), Times.from_measurements(calibrated)
    masked = masked_flops(job.model.resolve(), job.data.seq_len)
    found = {}
    for pool in sorted(plan.pools()):
        stages = [(plan.pipelines[p].share, stage) for (p, _), stage in plan.stages() if stage.pool == pool]
        times = measured if job.pools[pool].emulate is None else sheets
        computing = Computing(tensor_parallel=_tensor_parallel(times, work, stages))
        found[pool] = PoolWork(computing, _whole_square(work, masked, stages))
    return found


def _tensor_parallel(times: Times, work: Workload, stages: _Shares) -> float | None:
    """By how much a group of n takes longer than an n-th of what one chip does: its collectives, and on real chips what
    thinner products lose; as a part of its time. None where one chip alone was not measured."""
    if all(stage.tp == 1 for _, stage in stages):
        return 0.0
    if not all(times.knows(stage.pool, tp, work) for _, stage in stages for tp in (1, stage.tp)):
        return None
    together = sum(share * stage.tp * _seconds(times, work, stage, stage.tp) for share, stage in stages)
    alone = sum(share * _seconds(times, work, stage, 1) for share, stage in stages)
    return max(0.0, 1 - alone / together) if together > 0 else None


def _seconds(times: Times, work: Workload, stage: StagePlan, tp: int) -> float:
    return units_time(times, work, stage.pool, tp, stage.unit_indices()).total_s


def _whole_square(work: Workload, masked: Sequence[float], stages: _Shares) -> float:
    counted, taken = (
        sum(share * flops[unit] for share, stage in stages for unit in stage.unit_indices())
        for flops in ([unit.forward_flops for unit in work.units], masked)
    )
    return 1 + taken / counted if counted else 1.0
