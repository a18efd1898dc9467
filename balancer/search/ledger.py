"""Where the speed went: the parts of 1 - efficiency_vs_ideal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from balancer.completion.idle import used_chips
from balancer.cost.ideal import ideal_tokens_per_s, pool_sequences_per_s
from balancer.cost.stage_times import stage_time, stage_unit_time
from balancer.cost.times import model_time
from balancer.plan.equal import equal_pipelines
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.search.cut import StageCost, cut
from balancer.search.missed import MeasuredStep, missed
from balancer.search.shares import shares
from balancer.simulate.simulate import Prediction, Scenario, run

TERMS = ("rounding", "imbalance", "bubble", "exposed_link", "recompute", "update", "tp", "idle", "other")
"""Of a prediction. A measured step has those of `balancer.search.missed` too, before the last."""


class _Work(NamedTuple):
    """Seconds per micro-batch of each stage of a pipeline, its backwards whole: as it is `now`, and under the `best`
    cut, memory aside, unless that is as it is: several chunks on a stage may beat every single cut."""

    now: list[float]
    best: list[float]


def efficiency(prediction: Prediction) -> dict[str, float]:
    """ "efficiency_vs_ideal" and where the rest went: "ledger_*" terms that sum to 1 minus it."""
    terms = {f"ledger_{term}": value for term, value in ledger(prediction).items()}
    return {"efficiency_vs_ideal": prediction.efficiency_vs_ideal, **terms}


def ledger(prediction: Prediction, measured: MeasuredStep | None = None) -> dict[str, float]:
    """The terms, as fractions of the step, summing to 1 - (ideal step / step). Of a `measured` step there are, beside
    those that the prediction foresees, the causes of what it missed.

    The step is built up from the ideal one, each stretch with its own name:
    rounding      whole units and whole micro-batches: the busiest stage if these stages had the best cuts and shares
    imbalance     this plan's busiest stage against that of the cuts and shares which suit the times that it is judged
                  by (shares that reckon with each pipeline's filling); 0 for a plan made for these very times
    bubble        the rest of the computation, all links free: filling and emptying, and collectives that
                  backwards in two actions no longer hide
    exposed_link  what the links add, gradient sync included
    recompute     what backwards make again: the busiest stage under the best cuts and shares, with it and without
    update        the optimizer's, and its way to host memory and back
    tp            a tp that is not the pool's fastest
    idle          chips that the plan gives no work
    other         what nothing explains: of a prediction nothing is left
    """
    s = prediction.scenario
    step_s = measured.step_s if measured else prediction.step_s
    free, used_s = run(replace(s, free_links=True)), _used_step_s(s)
    work = _work(s)
    once = work if _recomputes_nothing(s.plan) else _work(replace(s, plan=_without_recompute(s.plan)))
    best_s, busy_s, best = _best_s(s, work), _busy_s(s, work), [each.best for each in work]
    once_s = min(best_s, _best_s(s, once))
    imbalance_s = max(0.0, busy_s - _busiest_s(s, best, [sum(each) - max(each) for each in best]))
    ideal_s = s.time_scale * s.workload.global_batch * s.workload.seq_len
    ideal_s /= ideal_tokens_per_s(s.topology, s.workload, s.times)
    idle, exposed_s = _idle_part(s), prediction.step_s - free.step_s
    seconds = {
        "rounding": once_s - used_s,
        "imbalance": imbalance_s,
        "bubble": free.compute_s - best_s - imbalance_s,
        "exposed_link": exposed_s,
        "recompute": best_s - once_s,
        "update": free.sync_s,
        "tp": used_s - ideal_s / (1 - idle),
        "idle": ideal_s * idle / (1 - idle),
        **(missed(prediction, measured, exposed_s) if measured else {}),
    }
    terms = {name: each / step_s for name, each in seconds.items()}
    return terms | {"other": 1 - ideal_s / step_s - sum(terms.values())}


def _idle_part(s: Scenario) -> float:
    """Of the speed of all chips, that of those that the plan gives no work."""
    used = used_chips(s.plan)
    rates = {pool: pool_sequences_per_s(pool, s.workload, s.times) for pool in s.topology.pools}
    idle = sum(rate * (pool.count - used[pool.name]) / pool.count for pool, rate in rates.items())
    return idle / sum(rates.values())


def _used_step_s(s: Scenario) -> float:
    """The step of the plan's own stages if each were busy all the time."""
    rate = sum(1 / model_time(s.times, s.workload, stage.pool, stage.tp) for _, stage in s.plan.stages())
    return s.time_scale * s.workload.global_batch / rate


def _recomputes_nothing(plan: Plan) -> bool:
    return all(stage.recompute == "none" for _, stage in plan.stages())


def _without_recompute(plan: Plan) -> Plan:
    return plan.with_stages(lambda _, stage: stage.model_copy(update={"recompute": "none"}))


def _best_s(s: Scenario, work: Sequence[_Work]) -> float:
    return min(_busy_s(s, work), _busiest_s(s, [each.best for each in work], [0.0] * len(work)))


def _busy_s(s: Scenario, work: Sequence[_Work]) -> float:
    """Work of the busiest stage."""
    return max(p.micro_batches * max(each.now) for p, each in zip(s.plan.pipelines, work, strict=True))


def _busiest_s(s: Scenario, best: Sequence[Sequence[float]], fill_s: Sequence[float]) -> float:
    """Work of the busiest stage if the pipelines had these cuts and shares that reckon with these fills. Pipelines
    with different micro-batch sizes keep the shares that they have."""
    pipelines, slowest = s.plan.pipelines, [max(work) for work in best]
    counts: tuple[int, ...] = tuple(pipeline.micro_batches for pipeline in pipelines)
    if len({pipeline.micro_batch for pipeline in pipelines}) == 1:
        counts = shares(fill_s, slowest, sum(counts))
    return max(n * each for n, each in zip(counts, slowest, strict=True))


def _work(s: Scenario) -> list[_Work]:
    """By pipeline; equal ones have equal work."""
    found = {p: work for equal in equal_pipelines(s.plan) for work in [_work_of(s, equal[0])] for p in equal}
    return [found[p] for p in range(len(found))]


def _work_of(s: Scenario, number: int) -> _Work:
    pipeline = s.plan.pipelines[number]
    costs = _costs(s, pipeline)
    now = [0.0] * len(costs)
    for chunk in pipeline.chunks():
        now[chunk.stage] += costs[chunk.stage].between(chunk.units)
    ranges = cut(costs, s.workload.cuts, max(now)) or ()
    best = [cost.between(units) for cost, units in zip(costs, ranges, strict=False)]
    return _Work(now, best if best and max(best) < max(now) else now)


def _costs(s: Scenario, pipeline: PipelinePlan) -> list[StageCost]:
    size = pipeline.micro_batch
    scale = s.time_scale * size
    return [StageCost.of_units([scale * each for each in _units_s(s, stage, size)]) for stage in pipeline.stages]


def _units_s(s: Scenario, stage: StagePlan, micro_batch: int) -> list[float]:
    """Of each unit of the model, if the stage had it. Where a number of units is recomputed, others of its are taken to
    make as large a part of their work again."""
    once = [s.times.lookup(stage.pool, stage.tp, unit.kind, micro_batch).total_s for unit in s.workload.units]
    if stage.recompute == "none":
        return once
    costs, own = (s.times, s.topology, s.workload), stage.unit_indices()
    if not isinstance(stage.recompute, RecomputedUnits):
        return [stage_unit_time(*costs, stage, unit, micro_batch).total_s for unit in range(len(once))]
    slower = stage_time(*costs, stage, own, micro_batch).total_s / (sum(once[unit] for unit in own) or 1.0)
    return [slower * each for each in once]
