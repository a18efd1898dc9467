"""How long a stage takes for its units, with what its backward makes again."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.cost.kernels import SWEEPS
from balancer.cost.times import Times, UnitTime
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import StagePlan


def stage_time(
    times: Times, topology: Topology, workload: Workload, stage: StagePlan, units: Sequence[int], micro_batch: int = 1
) -> UnitTime:
    """Of several of its units, per sequence of a micro-batch of so many."""
    each = (stage_unit_time(times, topology, workload, stage, unit, micro_batch) for unit in units)
    return UnitTime(*map(sum, zip(*each, strict=True)))


def stage_unit_time(
    times: Times, topology: Topology, workload: Workload, stage: StagePlan, unit: int, micro_batch: int = 1
) -> UnitTime:
    """Of one of its units, per sequence of a micro-batch of so many. What is made again takes what was measured, or
    what it is expected to. Of a sequence-parallel stage's collectives only the gathering of rows is done again, half of
    an all-reduce. On chips whose kernels have a price of their own, rows of the stream that are apart are swept apart,
    and slices of a last product hide the sums of those before them."""
    pool = topology.pool(stage.pool)
    plain = times.lookup(stage.pool, stage.tp, workload.units[unit].kind, micro_batch)
    if stage.recompute == "none" and not pool.shaped:
        return plain
    kept, way = workload.at(pool.precision).units[unit], stage.recompute_of(unit)
    made = kept.under(way)
    again_s = times.again_s(stage.pool, stage.tp, kept.kind, way, micro_batch) if made is not kept else 0.0
    if again_s is None:
        again_s = _expected_again_s(plain, pool, stage.tp, kept, made)
    if made.remade_flops > kept.remade_flops and stage.sequence_parallel:
        again_s += plain.collectives_s / 2
    time = plain._replace(backward_s=plain.backward_s + again_s)
    return _by_strategy(time, topology, stage, kept) if pool.shaped else time


def alone_time(
    times: Times, topology: Topology, workload: Workload, pool: str, unit: int, micro_batch: int
) -> UnitTime:
    """Of a whole micro-batch in a unit that one chip of a pool has whole."""
    stage = StagePlan(pool=pool, tp=1, units=((unit, unit + 1),))
    return stage_unit_time(times, topology, workload, stage, unit, micro_batch).slowed(micro_batch)


def _expected_again_s(plain: UnitTime, pool: PoolSpec, tp: int, kept: UnitWork, made: UnitWork) -> float:
    """Products go as fast as a forward without its collectives; other values are written once more and read once
    more."""
    flops = made.remade_flops - kept.remade_flops
    if flops:
        return (plain.forward_s - plain.collectives_s) * flops / kept.forward_flops
    return 2 * (kept.kept_bytes(tp) - made.kept_bytes(tp)) / pool.chip.memory_bytes_per_s


def _by_strategy(time: UnitTime, topology: Topology, stage: StagePlan, unit: UnitWork) -> UnitTime:
    pool, spared_s = topology.pool(stage.pool), 0.0
    if stage.sequence_parallel:
        spared = unit.kept_bytes(stage.tp) - unit.kept_bytes(stage.tp, stage.tp)
        spared_s = SWEEPS * max(0.0, spared) / pool.chip.memory_bytes_per_s
    hidden_s = time.collectives_s * (1 - 1 / stage.tp_slices)
    return time._replace(
        forward_s=time.forward_s - spared_s - hidden_s,
        backward_s=time.backward_s - 2 * spared_s,
        collectives_s=time.collectives_s - hidden_s,
    )
