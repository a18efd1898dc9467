"""What the forwards and backwards of a pool are made of, by its plan and by what is known of its chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from balancer.cost.stage_times import stage_time
from balancer.cost.times import Times
from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import Plan, StagePlan
from balancer.problem import Problem
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.models.flops import masked_flops
from hetero.monitoring.waterfall import Computing

_Shares = Sequence[tuple[int, StagePlan]]
"""The stages of a pool, each with the sequences that it has in a step."""
_Products = Mapping[tuple[str, int, str], float]
"""Seconds of a sequence by pool, tp and kind of unit."""


@dataclass(frozen=True)
class PoolWork:
    """How the time of a pool's forwards and backwards divides, and `whole_square`: the FLOPs with all of attention's
    square over those that an MFU counts."""

    computing: Computing
    whole_square: float


def pool_work(job: Job, plan: Plan, calibrated: Sequence[Mapping[str, Any]]) -> dict[str, PoolWork]:
    """Of the pools that the plan uses. Emulated chips keep to their data sheets; of real ones a calibration tells apart
    what it measured: products, and a group where it timed one chip alone, too."""
    sheets, masked = problem(job), masked_flops(job.model.resolve(), job.data.seq_len)
    measured = replace(sheets, times=Times.from_measurements(calibrated))
    timed = ((row["pool"], row["tp"], row["kind"], row.get("products_s")) for row in calibrated)
    products = {(pool, tp, kind): seconds for pool, tp, kind, seconds in timed if seconds is not None}
    found = {}
    for pool in sorted(plan.pools()):
        stages = [(plan.pipelines[p].share, stage) for (p, _), stage in plan.stages() if stage.pool == pool]
        emulated, sizes = job.pools[pool].emulate is not None, {stage.tp for _, stage in stages}
        known = not emulated and all(measured.knows(pool, tp) for tp in sizes)
        alone = emulated or sizes == {1} or (known and measured.knows(pool, 1))
        computing = _computing(measured if known else sheets, stages, alone, products if known else {})
        found[pool] = PoolWork(computing, _whole_square(sheets.workload, masked, stages))
    return found


def _computing(asked: Problem, stages: _Shares, alone: bool, products: _Products) -> Computing:
    """A group of n takes longer than an n-th of what one chip does `alone`, where that is known: for its collectives,
    and on real chips for what thinner products lose. What is computed again has the planner's price."""
    times, work = asked.times, asked.workload

    def chip_seconds(of: Callable[[StagePlan, str], float]) -> float:
        """In a step, of what is computed once."""
        units = ((share, stage, work.units[index]) for share, stage in stages for index in stage.unit_indices())
        return sum(share * _once(unit) * of(stage, unit.kind) for share, stage, unit in units)

    whole = sum(
        share * stage.tp * stage_time(times, asked.topology, work, stage, stage.unit_indices()).total_s
        for share, stage in stages
    )
    if whole <= 0:
        return Computing()
    once = chip_seconds(lambda stage, kind: stage.tp * times.lookup(stage.pool, stage.tp, kind).total_s)
    spoken = once - chip_seconds(lambda stage, kind: times.lookup(stage.pool, 1, kind).total_s) if alone else None
    needed = {(stage.pool, stage.tp, work.units[index].kind) for _, stage in stages for index in stage.unit_indices()}
    multiplied = None
    if needed <= products.keys():
        multiplied = chip_seconds(lambda stage, kind: stage.tp * products[stage.pool, stage.tp, kind])
    return Computing(
        products=None if multiplied is None else multiplied / whole,
        tensor_parallel=None if spoken is None else max(0.0, spoken / whole),
        recompute=max(0.0, whole - once) / whole,
    )


def _once(unit: UnitWork) -> float:
    """The part of a unit's time in which it makes nothing again, which a unit may do by itself."""
    counted = 3 * unit.forward_flops
    return counted / (counted + unit.remade_flops) if counted else 1.0


def _whole_square(work: Workload, masked: Sequence[float], stages: _Shares) -> float:
    counted, taken = (
        sum(share * flops[unit] for share, stage in stages for unit in stage.unit_indices())
        for flops in ([unit.forward_flops for unit in work.units], masked)
    )
    return 1 + taken / counted if counted else 1.0
