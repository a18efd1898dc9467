"""Plans near the one that is obeyed: other shares, other cuts. Chips, sizes, order and strategies stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm

from balancer.completion.completion import predict
from balancer.cost.stage_times import stage_unit_time
from balancer.errors import BalancerError
from balancer.plan.plan import PipelinePlan, Plan, Range, StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.rebalance.owners import with_owners
from balancer.schedule.action import COMPUTING
from balancer.search.cut import StageCost, cut
from balancer.simulate.simulate import Prediction

PipelineCuts = tuple[Range, ...]
"""The chunks of a pipeline, stage by stage."""
WAY = (1.0, 0.5, 0.25)


def reshared(now: Prediction) -> Prediction | None:
    """With the shares that end earliest, in whole micro-batches; None if these are the same, or cannot be."""
    plan = now.plan
    ends = _evened([_End.of(now, p) for p in range(len(plan.pipelines))])
    pipelines = [_reopened(pipeline, end.sequences) for pipeline, end in zip(plan.pipelines, ends, strict=True)]
    if [one.share for one in pipelines] == [one.share for one in plan.pipelines]:
        return None
    return _predicted(plan, pipelines, now.scenario.problem)


def recut(now: Prediction) -> Prediction | None:
    """With other units at the boundaries of its stages, then with other shares. Of the cuts on the way to the one whose
    slowest stages are fastest, the first that fits into memory; None if there is none."""
    plan, problem = now.plan, now.scenario.problem
    for cuts in _towards(plan, problem):
        pipelines = [_reopened(pipeline, cuts=found) for pipeline, found in zip(plan.pipelines, cuts, strict=True)]
        if found := _predicted(plan, pipelines, problem):
            return min(filter(None, (found, reshared(found))), key=lambda one: one.step_s)
    return None


def _predicted(before: Plan, pipelines: Sequence[PipelinePlan], problem: Problem) -> Prediction | None:
    """None for what no chip could obey."""
    after = before.model_copy(update={"pipelines": tuple(pipelines)})
    try:
        return predict(with_owners(before, after, problem.workload), problem)
    except BalancerError:
        return None


def _reopened(pipeline: PipelinePlan, share: int | None = None, cuts: PipelineCuts | None = None) -> PipelinePlan:
    """What depends on shares and cuts is left open again."""
    stages = [stage.model_copy(update={"warmup": None}) for stage in pipeline.stages]
    if cuts is not None and cuts != _cuts(pipeline):
        stages = [stage.model_copy(update={"units": (held,)}) for stage, held in zip(stages, cuts, strict=True)]
    share = pipeline.share if share is None else share
    return pipeline.model_copy(update={"share": share, "stages": tuple(stages), "ticks": None})


@dataclass(frozen=True)
class _End:
    """When a pipeline ends that has so many sequences, some `at_once`: later by `sequence_s` for each one more."""

    sequences: int
    at_once: int
    end_s: float
    sequence_s: float

    @classmethod
    def of(cls, now: Prediction, p: int) -> _End:
        pipeline = now.plan.pipelines[p]
        places = [(p, s) for s in range(len(pipeline.stages))]
        end_s = max(end for place in places for action, _, end in now.spans[place] if action.kind in COMPUTING)
        slowest_s = max(now.busy_s[place] for place in places)
        return cls(pipeline.share, pipeline.micro_batch, end_s, slowest_s / pipeline.share)

    def given(self, more: int) -> _End:
        return replace(self, sequences=self.sequences + more, end_s=self.end_s + more * self.sequence_s)


def _evened(ends: list[_End]) -> list[_End]:
    """What ends last gives to what then ends first, while that helps."""
    while True:
        last = max(range(len(ends)), key=lambda p: ends[p].end_s)
        giver = ends[last]
        amounts = [lcm(giver.at_once, end.at_once) for end in ends]
        others = [p for p in range(len(ends)) if p != last and amounts[p] < giver.sequences]
        if not others:
            return ends
        to = min(others, key=lambda p: ends[p].given(amounts[p]).end_s)
        taken = ends[to].given(amounts[to])
        if taken.end_s >= giver.end_s:
            return ends
        ends[to], ends[last] = taken, giver.given(-amounts[to])


def _towards(plan: Plan, problem: Problem) -> Iterator[list[PipelineCuts]]:
    """The best cuts of all pipelines, then those half of the way and a quarter of the way there."""
    now = [_cuts(pipeline) for pipeline in plan.pipelines]
    best = [_best_cut(pipeline, problem) for pipeline in plan.pipelines]
    seen = [now]
    for part in WAY:
        cuts = [
            tuple(_between(one, other, part, problem.workload.cuts) for one, other in zip(a, b, strict=True))
            for a, b in zip(now, best, strict=True)
        ]
        if cuts not in seen and all(begin < end for pipeline in cuts for begin, end in pipeline):
            seen.append(cuts)
            yield cuts


def _between(one: Range, other: Range, part: float, places: Sequence[int]) -> Range:
    begin, end = (a + part * (b - a) for a, b in zip(one, other, strict=True))
    return _nearest(begin, places), _nearest(end, places)


def _nearest(wanted: float, places: Sequence[int]) -> int:
    return min(places, key=lambda place: (abs(place - wanted), place))


def _best_cut(pipeline: PipelinePlan, problem: Problem) -> PipelineCuts:
    """By time alone. A pipeline whose stages have several chunks keeps them."""
    if any(len(stage.units) > 1 for stage in pipeline.stages):
        return _cuts(pipeline)
    units = range(len(problem.workload.units))
    costs = [StageCost.of_units([_unit_s(stage, unit, problem) for unit in units]) for stage in pipeline.stages]
    return cut(costs, problem.workload.cuts) or _cuts(pipeline)


def _cuts(pipeline: PipelinePlan) -> PipelineCuts:
    return tuple(units for stage in pipeline.stages for units in stage.units)


def _unit_s(stage: StagePlan, unit: int, problem: Problem) -> float:
    """If the stage had it; where it recomputes by number, without that."""
    held = {"units": ((unit, unit + 1),)} | (
        {"recompute": "none"} if isinstance(stage.recompute, RecomputedUnits) else {}
    )
    found = stage_unit_time(problem.times, problem.topology, problem.workload, stage.model_copy(update=held), unit)
    return found.total_s
