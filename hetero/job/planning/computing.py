"""What the forwards and backwards of a pool are made of, by its plan and by what is known of its chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from balancer.cost.stage_times import stage_time
from balancer.cost.times import Times, datasheet_times
from balancer.cost.topology import Topology
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


class _ChipSeconds(NamedTuple):
    """Of a stage: all of them, what is computed `again`, and what one chip `alone` would take without that."""

    whole: float
    again: float
    alone: float


def pool_work(job: Job, plan: Plan, calibrated: Sequence[Mapping[str, Any]]) -> dict[str, PoolWork]:
    """Of the pools that the plan uses. Emulated chips keep to their data sheets; what the ranks of real ones say to
    each other is told apart where a calibration measured one chip alone, too."""
    chips, work = topology(job), workload(job)
    sheets, measured = datasheet_times(chips, work), Times.from_measurements(calibrated)
    masked = masked_flops(job.model.resolve(), job.data.seq_len)
    found = {}
    for pool in sorted(plan.pools()):
        stages = [(plan.pipelines[p].share, stage) for (p, _), stage in plan.stages() if stage.pool == pool]
        emulated = job.pools[pool].emulate is not None
        known = not emulated and all(measured.knows(pool, tp, work) for _, stage in stages for tp in (1, stage.tp))
        told_apart = emulated or known or all(stage.tp == 1 for _, stage in stages)
        computing = _computing(measured if known else sheets, chips, work, stages, told_apart)
        found[pool] = PoolWork(computing, _whole_square(work, masked, stages))
    return found


def _computing(times: Times, chips: Topology, work: Workload, stages: _Shares, told_apart: bool) -> Computing:
    """By how much a group of n takes longer than an n-th of what one chip does: its collectives, and on real chips what
    thinner products lose. What is computed again is priced as planners do."""
    found = [(share, _chip_seconds(times, chips, work, stage)) for share, stage in stages]
    whole, again, alone = (sum(share * seconds[n] for share, seconds in found) for n in range(3))
    if whole <= 0:
        return Computing()
    spoken = max(0.0, whole - again - alone) / whole
    return Computing(tensor_parallel=spoken if told_apart else None, recompute=again / whole)


def _chip_seconds(times: Times, chips: Topology, work: Workload, stage: StagePlan) -> _ChipSeconds:
    """For one sequence."""
    whole = stage_time(times, chips, work, stage, stage.unit_indices()).total_s
    once = alone = 0.0
    for unit in (work.units[index] for index in stage.unit_indices()):
        counted = 3 * unit.forward_flops
        part = counted / (counted + unit.remade_flops) if counted else 1.0  # a unit may make things again by itself
        once += part * times.lookup(stage.pool, stage.tp, unit.kind).total_s
        alone += part * times.lookup(stage.pool, 1, unit.kind).total_s
    return _ChipSeconds(stage.tp * whole, stage.tp * (whole - once), alone)


def _whole_square(work: Workload, masked: Sequence[float], stages: _Shares) -> float:
    counted, taken = (
        sum(share * flops[unit] for share, stage in stages for unit in stage.unit_indices())
        for flops in ([unit.forward_flops for unit in work.units], masked)
    )
    return 1 + taken / counted if counted else 1.0
