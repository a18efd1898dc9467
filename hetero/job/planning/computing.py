"""What the forwards and backwards of a pool are made of, by its plan and by what is known of its chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from balancer.cost.stage_times import stage_time
from balancer.cost.times import Times, UnitTime
from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.lowering import backwards_apart
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.models.flops import masked_flops
from hetero.monitoring.waterfall import Computing

_Products = Mapping[tuple[str, int, str], float]
"""Seconds of a sequence by pool, tp and kind of unit."""


class _Shared(NamedTuple):
    """A stage with the sequences that it has in a step; and whether its backwards are two actions."""

    share: int
    plan: StagePlan
    apart: bool

    def chip_s(self, time: UnitTime) -> float:
        """Of all its chips, where a sequence takes that time."""
        return self.plan.tp * time.taken_s(self.apart)


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
    divided = replace(sheets, times=Times.from_measurements(calibrated, otherwise=sheets.times))
    apart = [backwards_apart(pipeline, plan.schedule) for pipeline in plan.pipelines]
    timed = ((row["pool"], row["tp"], row["kind"], row.get("products_s")) for row in calibrated)
    products = {(pool, tp, kind): seconds for pool, tp, kind, seconds in timed if seconds is not None}
    found = {}
    for pool in sorted(plan.pools()):
        stages = [
            _Shared(plan.pipelines[p].share, stage, apart[p][s])
            for (p, s), stage in plan.stages()
            if stage.pool == pool
        ]
        emulated, sizes = job.pools[pool].emulate is not None, {stage.plan.tp for stage in stages}
        known = not emulated and all(measured.knows(pool, tp) for tp in sizes)
        alone = emulated or sizes == {1} or (known and measured.knows(pool, 1))
        computing = _computing(divided if known else sheets, stages, alone, products if known else {})
        found[pool] = PoolWork(computing, _whole_square(sheets.workload, masked, stages))
    return found


def _computing(asked: Problem, stages: Sequence[_Shared], alone: bool, products: _Products) -> Computing:
    """A group of n takes longer than an n-th of what one chip does `alone`, where that is known: for its collectives,
    and on real chips for what thinner products lose. What is computed again has the planner's price."""
    times, work = asked.times, asked.workload

    def chip_seconds(of: Callable[[_Shared, str], float]) -> float:
        """In a step, of what is computed once."""
        units = ((stage, work.units[index]) for stage in stages for index in stage.plan.unit_indices())
        return sum(stage.share * _once(unit) * of(stage, unit.kind) for stage, unit in units)

    def time(stage: _Shared, tp: int, kind: str) -> UnitTime:
        return times.lookup(stage.plan.pool, tp, kind)

    whole = sum(
        stage.share * stage.chip_s(stage_time(times, asked.topology, work, stage.plan, stage.plan.unit_indices()))
        for stage in stages
    )
    if whole <= 0:
        return Computing()
    once = chip_seconds(lambda stage, kind: stage.chip_s(time(stage, stage.plan.tp, kind)))
    spoken = once - chip_seconds(lambda stage, kind: time(stage, 1, kind).total_s) if alone else None
    needed = {(s.plan.pool, s.plan.tp, work.units[index].kind) for s in stages for index in s.plan.unit_indices()}
    multiplied = None
    if needed <= products.keys():
        multiplied = chip_seconds(lambda stage, kind: stage.plan.tp * products[stage.plan.pool, stage.plan.tp, kind])
    return Computing(
        products=None if multiplied is None else multiplied / whole,
        tensor_parallel=None if spoken is None else max(0.0, spoken / whole),
        recompute=max(0.0, whole - once) / whole,
    )


def _once(unit: UnitWork) -> float:
    """The part of a unit's time in which it makes nothing again, which a unit may do by itself."""
    counted = unit.model_flops
    return counted / (counted + unit.remade_flops) if counted else 1.0


def _whole_square(work: Workload, masked: Sequence[float], stages: Sequence[_Shared]) -> float:
    counted, taken = (
        sum(stage.share * flops[unit] for stage in stages for unit in stage.plan.unit_indices())
        for flops in ([unit.model_flops for unit in work.units], [3 * flops for flops in masked])
    )
    return 1 + taken / counted if counted else 1.0
