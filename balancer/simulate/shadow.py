"""How long ranks wait while a chip computes a micro-batch of another pool's stage again (hetero/engine/shadow)."""

from __future__ import annotations

from balancer.cost.stage_times import alone_time
from balancer.cost.times import transfer_s
from balancer.memory.shadow import shadow_place
from balancer.memory.tied import parameters_with_tied
from balancer.plan.plan import StagePlan
from balancer.schedule.action import Kind
from balancer.simulate.scenario import Scenario
from bridge.precision import ITEM_BYTES


def shadow_s(scenario: Scenario) -> float:
    """For the stage with which it takes longest, over links that are idle; 0 where nothing is computed again."""
    plan, pool = scenario.plan, scenario.workload.shadow
    if pool is None or shadow_place(plan, pool) is None:
        return 0.0
    found: dict[tuple[int, str, str, tuple[int, ...]], float] = {}
    for (pipeline, _), stage in plan.stages():
        micro_batch = plan.pipelines[pipeline].micro_batch
        alike = micro_batch, stage.pool, str(stage.precision), tuple(stage.unit_indices())
        if stage.pool != pool and alike not in found:
            found[alike] = _stage_s(scenario, stage, micro_batch, pool)
    return scenario.time_scale * max(found.values())


def _stage_s(scenario: Scenario, stage: StagePlan, micro_batch: int, pool: str) -> float:
    """Unit by unit: its tensors, what it gives and the gradient of that cross, then it is computed; before the first,
    what the stage is given."""
    precision = str(stage.precision)
    work, link = scenario.workload.at(precision), scenario.topology.link(stage.pool, pool)
    boundary = 2 * micro_batch * max(unit.boundary_bytes for unit in work.units)
    seconds = transfer_s(link, boundary)
    for unit in stage.unit_indices():
        time = alone_time(scenario.times, scenario.topology, scenario.workload, pool, unit, micro_batch)
        seconds += transfer_s(link, sum(parameters_with_tied(work, [unit])) * ITEM_BYTES[precision] + boundary)
        seconds += time.of(Kind.F) + time.of(Kind.I)
    return seconds
