"""Plans by a rule that is simple enough to be told, for any number of chips.

Either each family forms pipelines of its own, or all go through all families, in their order; whichever steps faster. A
pipeline has as few stages as hold the model, cut by time; one micro-batch is one sequence, and each pipeline takes as
many as let all end together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancer.completion.completion import assign_owners, expand_replicas, fill_precisions, place_chips
from balancer.cost.topology import PoolSpec
from balancer.memory.need import memory_need
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.search.cut import StageCost, cut
from balancer.search.shares import shares
from balancer.simulate.simulate import Prediction, simulate

Stages = tuple[tuple[str, int], ...]
"""(pool, tp) of each stage of a pipeline."""
_REHEARSED = 2
"""Micro-batches for each that is in flight: with them a pipeline is as full as it ever is."""
_DEEPER = 2
"""Forwards that stages have beyond 1F1B's where pipelines cross a bridge: they hide it."""


def ruled(asked: Problem, tp: int) -> Prediction | None:
    """A step of the plan; None where nothing fits."""
    pools = asked.topology.pools
    forms = [[_smallest(asked, [pool], tp) for pool in pools], [_smallest(asked, pools, tp)]][: len(pools)]
    steps = [_step(asked, [plan for plan in form if plan is not None]) for form in forms if None not in form]
    return min((step for step in steps if step is not None), key=lambda step: step.step_s, default=None)


def _step(asked: Problem, plans: Sequence[Plan]) -> Prediction | None:
    """Of all of them together."""
    pipelines = [pipeline for plan in plans for pipeline in plan.pipelines for _ in range(pipeline.replicas)]
    if len(pipelines) > asked.workload.global_batch:
        return None
    fills_s, periods_s = zip(*_paces(asked, pipelines), strict=True)
    counts = shares(fills_s, periods_s, asked.workload.global_batch)
    shared = (_sharing(pipeline, count) for pipeline, count in zip(pipelines, counts, strict=True))
    return simulate(_completed(Plan(pipelines=tuple(shared)), asked), asked)


def _sharing(pipeline: PipelinePlan, share: int) -> PipelinePlan:
    stages = (stage.model_copy(update={"warmup": min(stage.warmup or 1, share)}) for stage in pipeline.stages)
    return pipeline.model_copy(update={"share": share, "replicas": 1, "stages": tuple(stages)})


def _smallest(asked: Problem, pools: Sequence[PoolSpec], tp: int) -> Plan | None:
    """Equal pipelines over these pools, as many as there can be."""
    groups = [pool.count // tp for pool in pools]
    for pipelines in range(min(groups), 0, -1):
        if any(count % pipelines for count in groups):
            continue
        stages = tuple(
            (pool.name, tp) for pool, count in zip(pools, groups, strict=True) for _ in range(count // pipelines)
        )
        written = _written(asked, stages, pipelines)
        if written is not None and _fits(asked, written):
            return written
    return None


def _written(asked: Problem, stages: Stages, pipelines: int) -> Plan | None:
    units = asked.workload.units
    costs = [StageCost.of_units([asked.times.lookup(*stage, unit.kind).total_s for unit in units]) for stage in stages]
    ranges = cut(costs, asked.workload.cuts)
    if ranges is None:
        return None
    deeper = _DEEPER if len(set(stages)) > 1 else 0
    placed = tuple(
        StagePlan(
            pool=pool,
            tp=tp,
            units=(units,),
            warmup=len(stages) - s + deeper * (s < len(stages) - 1),
            recompute="selective",
            sequence_parallel=tp > 1,
        )
        for s, ((pool, tp), units) in enumerate(zip(stages, ranges, strict=True))
    )
    share = _REHEARSED * (len(stages) + _DEEPER)
    return Plan(pipelines=(PipelinePlan(share=share, replicas=pipelines, stages=placed),))


def _fits(asked: Problem, written: Plan) -> bool:
    """Whether the first pipeline does, which owns as much as any."""
    plan = _completed(written, asked)
    return all(
        memory_need(plan, (0, s), asked).total <= asked.topology.pool(stage.pool).memory_bytes
        for s, stage in enumerate(plan.pipelines[0].stages)
    )


def _completed(plan: Plan, asked: Problem) -> Plan:
    """Without looking at every stage's memory, and with warm-ups by rule."""
    placed = place_chips(fill_precisions(expand_replicas(plan), asked.topology), asked.topology)
    return assign_owners(placed, asked)


def _paces(asked: Problem, pipelines: Sequence[PipelinePlan]) -> Iterator[tuple[float, float]]:
    """Seconds to fill a pipeline, and from sequence to sequence."""
    for pipeline in pipelines:
        work = [
            sum(
                asked.times.lookup(stage.pool, stage.tp, asked.workload.units[u].kind).total_s
                for u in stage.unit_indices()
            )
            for stage in pipeline.stages
        ]
        yield sum(work) - max(work), max(work)
