"""How long an emulated chip is told to take for each action: what its data sheet promises, times the job's scale."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from balancer.cost.stage_times import stage_time, stage_unit_time
from balancer.cost.times import datasheet_times, update_s
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import Plan
from balancer.schedule.action import Kind
from hetero.engine.step.stage import RankPlace
from hetero.words.pool import Pool

Expected = dict[tuple[Kind, int], float]
"""Seconds by kind and chunk; STEP has the chunk -1."""


Laps = dict[tuple[int, int], float]
"""By chunk and unit: the part of the chunk's backward after which the unit's own is done."""


def topology_of(pools: Mapping[str, Pool], precisions: Mapping[str, str]) -> Topology:
    """The pools that have a precision, as the balancer sees them, without links."""
    return Topology(tuple(pools[name].planned(precision) for name, precision in precisions.items()))


def expected_s(topology: Topology, workload: Workload, plan: Plan, place: RankPlace, time_scale: float) -> Expected:
    """For the chunks of one stage. Forward and backward are those of one micro-batch."""
    pipeline, stage = plan.pipelines[place.pipeline], plan.pipelines[place.pipeline].stages[place.stage]
    times = datasheet_times(topology, workload)
    found: Expected = {}
    for chunk in pipeline.chunks():
        if chunk.stage != place.stage:
            continue
        time = stage_time(times, topology, workload, stage, range(*chunk.units))
        scale = pipeline.micro_batch * time_scale
        found[Kind.F, chunk.index] = scale * time.forward_s
        found[Kind.B, chunk.index] = scale * time.backward_s
    found[Kind.STEP, -1] = time_scale * update_s(topology.pool(stage.pool).chip, workload, stage)
    return found


def laps(topology: Topology, workload: Workload, plan: Plan, place: RankPlace) -> Laps:
    """Of the chunks of one stage; backwards go from the last unit to the first."""
    pipeline, stage = plan.pipelines[place.pipeline], plan.pipelines[place.pipeline].stages[place.stage]
    times = datasheet_times(topology, workload)
    found: Laps = {}
    for chunk in pipeline.chunks():
        if chunk.stage == place.stage:
            units = range(chunk.units[1] - 1, chunk.units[0] - 1, -1)
            done = list(accumulate(stage_unit_time(times, topology, workload, stage, u).backward_s for u in units))
            found |= {(chunk.index, u): part / (done[-1] or 1.0) for u, part in zip(units, done, strict=True)}
    return found
