"""How deep a warm-up hides the links: by simulation, and no deeper than that takes.

A stage that has few forwards ahead waits for the round trip of its oldest micro-batch. More of them keep it busy
meanwhile; each costs the memory of a micro-batch. The schedule says what is enough, and which depths are legal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from balancer.cost.stage_times import stage_time
from balancer.cost.times import UnitTime
from balancer.errors import ScheduleError
from balancer.memory.need import memory_need
from balancer.plan.plan import Chunk, PipelinePlan, Place, Plan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import MicroBatchTimes, Schedule
from balancer.simulate.simulate import simulate

_Depths = tuple[int, ...]
_AS_GOOD = 1.001
"""A depth is as good as the best one if its step is no longer than this many times that one's."""


def deepen(plan: Plan, places: Collection[Place], problem: Problem) -> Plan:
    """The completed plan with the smallest warm-ups of the stages at `places` that hide its links as well as any do
    that fit into memory."""
    ladders = _Ladders(plan, places, problem).all()
    plans = [_at(plan, ladders, rung) for rung in range(max(map(len, ladders)))]
    if len(plans) == 1:
        return plan
    steps_s = [simulate(deeper, problem).step_s for deeper in plans]
    return next(deeper for deeper, step_s in zip(plans, steps_s, strict=True) if step_s <= _AS_GOOD * min(steps_s))


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
        return [self._ladder(p, pipeline) for p, pipeline in enumerate(self.plan.pipelines)]

    def _ladder(self, p: int, pipeline: PipelinePlan) -> list[_Depths]:
        """All stages grow by one micro-batch at a time, the first ones first, until each is deep enough."""
        usual, deepest = pipeline.warmups(), self._deepest(pipeline)
        rungs = [usual]
        most = pipeline.micro_batches
        spans = (range(max(0, wanted - most), wanted - have) for wanted, have in zip(deepest, usual, strict=True))
        for less in sorted({less for span in spans for less in span}, reverse=True):
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
        chunks = pipeline.chunks()
        work = [self._time(pipeline, chunk) for chunk in chunks]
        hop_s = [self._hop_s(pipeline, here, there) for here, there in pairwise(chunks)]
        n = pipeline.micro_batch
        times = MicroBatchTimes([time.total_s * n for time in work], [time.forward_s * n for time in work], hop_s)
        return self._schedule.hiding_warmups(pipeline.stage_of_chunk(), times, pipeline.warmups())

    @cached_property
    def _schedule(self) -> Schedule:
        return schedule(self.plan.schedule)

    def _time(self, pipeline: PipelinePlan, chunk: Chunk) -> UnitTime:
        stage = pipeline.stages[chunk.stage]
        problem = self.problem
        return stage_time(problem.times, problem.topology, problem.workload, stage, range(*chunk.units))

    def _hop_s(self, pipeline: PipelinePlan, here: Chunk, there: Chunk) -> float:
        """One way on the mean, behind a message of every other pipeline that shares the link."""
        ends = pipeline.stages[here.stage].pool, pipeline.stages[there.stage].pool
        topology, workload = self.problem.topology, self.problem.workload
        link, units = topology.link(*ends), workload.at(topology.crossing(*ends)).units
        size = float(units[here.units[1] - 1].boundary_bytes)
        size *= (link.activation_ratio + link.gradient_ratio) / 2 * pipeline.micro_batch
        return link.latency_s + self._sharing[frozenset(ends)] * size / link.bytes_per_s

    @cached_property
    def _sharing(self) -> dict[frozenset[str], int]:
        """How many pipelines cross between two pools, over as many pairs of hosts as the smaller one has hosts."""
        crossing: Counter[frozenset[str]] = Counter()
        for pipeline in self.plan.pipelines:
            pools = [pipeline.stages[chunk.stage].pool for chunk in pipeline.chunks()]
            crossing.update({frozenset(ends) for ends in pairwise(pools)})
        hosts = {pool.name: -(-pool.count // pool.chips_per_host) for pool in self.problem.topology.pools}
        return {
            ends: -(-n // min(hosts[name] for name in ends)) if len(ends) > 1 else 1 for ends, n in crossing.items()
        }


def _legal(schedule: Schedule, pipeline: PipelinePlan, depths: _Depths) -> bool:
    """A depth by hand may forbid deeper ones behind it."""
    try:
        schedule.check_warmups(pipeline.stage_of_chunk(), pipeline.micro_batches, depths)
    except ScheduleError:
        return False
    return True
