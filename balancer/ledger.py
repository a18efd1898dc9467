"""Where the speed went: the parts of 1 - efficiency_vs_ideal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from balancer.cost import model_time
from balancer.cut import StageCost, bottleneck, cut
from balancer.ideal import ideal_tokens_per_s
from balancer.shares import shares
from balancer.simulate import Prediction, Scenario, run

if TYPE_CHECKING:
    from balancer.plan import PipelinePlan

TERMS = ("rounding", "imbalance", "bubble", "exposed_link", "recompute", "other")


def ledger(prediction: Prediction, measured_step_s: float | None = None) -> dict[str, float]:
    """The terms, as fractions of the step, summing to 1 - (ideal step / step). With `measured_step_s` the step is the
    measured one, and what the prediction missed is in `other`.

    The step is built up from the ideal one, each stretch with its own name:
    rounding      whole units and whole micro-batches, the best that these stages could be given
    imbalance     this plan's busiest stage against that; 0 for a plan made for the very times it is judged by
    bubble        waiting of the busiest stage for others, all links free
    exposed_link  what the links add, gradient sync included
    recompute     forwards done twice (no schedule here does)
    other         chips left idle, a tp that is not the pool's fastest, the optimizer's update, what was not predicted
    """
    s = prediction.scenario
    step_s = measured_step_s or prediction.step_s
    free = run(replace(s, free_links=True))
    used_s, best_s, busy_s = _used_step_s(s), _best_step_s(s), max(prediction.busy_s.values())
    best_s = min(best_s, busy_s)
    terms = {
        "rounding": (best_s - used_s) / step_s,
        "imbalance": (busy_s - best_s) / step_s,
        "bubble": (free.compute_s - busy_s) / step_s,
        "exposed_link": (prediction.step_s - free.step_s) / step_s,
        "recompute": 0.0,
    }
    ideal_s = s.time_scale * s.workload.global_batch * s.workload.seq_len
    ideal_s /= ideal_tokens_per_s(s.topology, s.workload, s.times)
    terms["other"] = 1 - ideal_s / step_s - sum(terms.values())
    return terms


def _used_step_s(s: Scenario) -> float:
    """The step of the plan's own stages if each were busy all the time."""
    stages = [stage for pipeline in s.plan.pipelines for stage in pipeline.stages]
    rate = sum(1 / model_time(s.times, s.workload, stage.pool, stage.tp) for stage in stages)
    return s.time_scale * s.workload.global_batch / rate


def _best_step_s(s: Scenario) -> float:
    """Work of the busiest stage if the plan's stages, in their order, had the best cuts and shares."""
    pipelines = s.plan.pipelines
    slowest = [_best_bottleneck(s, pipeline) * pipeline.micro_batch for pipeline in pipelines]
    counts: tuple[int, ...] = tuple(pipeline.micro_batches for pipeline in pipelines)
    if len({pipeline.micro_batch for pipeline in pipelines}) == 1:
        counts = shares([0.0] * len(pipelines), slowest, sum(counts))
    return s.time_scale * max(n * each for n, each in zip(counts, slowest, strict=True))


def _best_bottleneck(s: Scenario, pipeline: PipelinePlan) -> float:
    """Seconds per sequence of the slowest stage, memory aside. Several chunks on a stage may beat every single cut."""
    units = s.workload.units
    costs = [
        StageCost.of_units([s.times.lookup(stage.pool, stage.tp, unit.kind).total_s for unit in units])
        for stage in pipeline.stages
    ]
    work = [0.0] * len(costs)
    for chunk in pipeline.chunks():
        work[chunk.stage] += bottleneck([costs[chunk.stage]], [chunk.units])
    ranges = cut(costs, s.workload.cuts)
    return min(max(work), bottleneck(costs, ranges)) if ranges else max(work)
