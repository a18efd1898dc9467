"""How deep a warm-up hides the links: by simulation, and no deeper than that takes.

A stage that has few forwards ahead waits for the round trip of its oldest micro-batch. More of them keep it busy
meanwhile; each costs the memory of a micro-batch. The schedule says what is enough, and which depths are legal.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from balancer.completion.legality import FEW_STAGES
from balancer.completion.timing import PlanTiming
from balancer.errors import ScheduleError
from balancer.memory.need import memory_need
from balancer.plan.equal import equal_pipelines
from balancer.plan.plan import PipelinePlan, Place, Plan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import Schedule
from balancer.simulate.simulate import Prediction, simulate

_Depths = tuple[int, ...]
_AS_GOOD = 1.001
"""A depth is as good as the best one if its step is no longer than this many times that one's."""

_RUNGS = 6
"""Depths that are tried of a schedule whose lists take a while to make."""


def deepen(plan: Plan, places: Collection[Place], problem: Problem) -> tuple[Plan, Prediction | None]:
    """The completed plan with the smallest warm-ups of the stages at `places` that hide its links as well as any do
    that fit into memory; and what is predicted of it, where there is a choice."""
    ladders = _Ladders(plan, places, problem).all()
    plans = [_at(plan, ladders, rung) for rung in range(max(map(len, ladders)))]
    if len(plans) == 1:
        return plan, None
    found = [simulate(deeper, problem) for deeper in plans]
    best_s = min(one.step_s for one in found)
    return next((one.plan, one) for one in found if one.step_s <= _AS_GOOD * best_s)


def _at(plan: Plan, ladders: list[list[_Depths]], rung: int) -> Plan:
    pipelines = tuple(
        _with(pipeline, ladder[min(rung, len(ladder) - 1)])
        for pipeline, ladder in zip(plan.pipelines, ladders, strict=True)
    )
    return plan.model_copy(update={"pipelines": pipelines})


def _with(pipeline: PipelinePlan, depths: _Depths) -> PipelinePlan:
    stages = [stage.model_copy(update={"warmup": n}) for stage, n in zip(pipeline.stages, depths, strict=True)]
    return pipeline.model_copy(update={"stages": tuple(stages)})


@dataclass(frozen=True)
class _Ladders:
    """Each pipeline's depths from those that it has to the deepest that fit, rung by rung."""

    plan: Plan
    places: Collection[Place]
    problem: Problem

    def all(self) -> list[list[_Depths]]:
        found: dict[int, list[_Depths]] = {}
        few = sum(len(pipeline.stages) for pipeline in self.plan.pipelines) <= FEW_STAGES
        for equal in equal_pipelines(self.plan):
            deepest = self._deepest(self.plan.pipelines[equal[0]])
            first = self._ladder(equal[0], self.plan.pipelines[equal[0]], deepest)  # which owns no less than others
            for p in equal:
                found[p] = self._ladder(p, self.plan.pipelines[p], deepest) if few and p != equal[0] else first
        return [found[p] for p in range(len(self.plan.pipelines))]

    def _ladder(self, p: int, pipeline: PipelinePlan, deepest: _Depths) -> list[_Depths]:
        """All stages grow by one micro-batch at a time, the first ones first, until each is deep enough."""
        usual = pipeline.warmups()
        rungs = [usual]
        most = pipeline.micro_batches
        spans = (range(max(0, wanted - most), wanted - have) for wanted, have in zip(deepest, usual, strict=True))
        every = sorted({less for span in spans for less in span})
        step = -(-len(every) // _RUNGS) if self._schedule.timed else 1
        for less in reversed(every[:: max(1, step)]):
            depths = tuple(
                max(have, min(wanted - less, most)) if (p, s) in self.places else have
                for s, (wanted, have) in enumerate(zip(deepest, usual, strict=True))
            )
            if depths == rungs[-1]:
                continue
            if not _legal(self._schedule, pipeline, depths) or not self._fits(p, _with(pipeline, depths)):
                break
            rungs.append(depths)
        return rungs

    def _fits(self, p: int, pipeline: PipelinePlan) -> bool:
        plan = self.plan.model_copy(
            update={"pipelines": (*self.plan.pipelines[:p], pipeline, *self.plan.pipelines[p + 1 :])}
        )
        limits = [self.problem.topology.pool(stage.pool).memory_bytes for stage in pipeline.stages]
        return all(memory_need(plan, (p, s), self.problem).total <= limit for s, limit in enumerate(limits))

    def _deepest(self, pipeline: PipelinePlan) -> _Depths:
        times = PlanTiming(self.plan, self.problem).micro_batch(pipeline)
        return self._schedule.hiding_warmups(pipeline.stage_of_chunk(), times, pipeline.warmups())

    @cached_property
    def _schedule(self) -> Schedule:
        return schedule(self.plan.schedule)


def _legal(schedule: Schedule, pipeline: PipelinePlan, depths: _Depths) -> bool:
    """A depth by hand may forbid deeper ones behind it."""
    try:
        schedule.check_warmups(pipeline.stage_of_chunk(), pipeline.micro_batches, depths)
    except ScheduleError:
        return False
    return True
