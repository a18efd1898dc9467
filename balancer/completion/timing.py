"""What the chunks and boundaries of a plan's pipelines are expected to take for a micro-batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from balancer.cost.stage_times import stage_time
from balancer.plan.plan import Chunk, PipelinePlan, Plan, Ticks
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import MicroBatchTimes
from balancer.schedule.timed import ticks_of_seconds


def fill_ticks(plan: Plan, problem: Problem) -> Plan:
    """What a timed schedule reckons with, where it is open and the times of all stages are known."""
    if not schedule(plan.schedule).timed or not all(problem.knows(s.pool, s.tp) for _, s in plan.stages()):
        return plan
    timing = PlanTiming(plan, problem)
    pipelines = (p.model_copy(update={"ticks": p.ticks or timing.ticks(p)}) for p in plan.pipelines)
    return plan.model_copy(update={"pipelines": tuple(pipelines)})


@dataclass(frozen=True)
class PlanTiming:
    """Of a problem whose times are known for all stages of a plan."""

    plan: Plan
    problem: Problem

    def micro_batch(self, pipeline: PipelinePlan) -> MicroBatchTimes:
        chunks, n = pipeline.chunks(), pipeline.micro_batch
        work = []
        for chunk in chunks:
            stage = pipeline.stages[chunk.stage]
            costs = self.problem.times, self.problem.topology, self.problem.workload
            work.append(stage_time(*costs, stage, range(*chunk.units), n).slowed(n))
        hop_s = []
        for here, there in pairwise(chunks):
            activation_s, gradient_s, latency_s = self._hop_s(pipeline, here, there)
            hop_s.append(latency_s + (activation_s + gradient_s) / 2)
        forward_s, weight_s = [time.forward_s for time in work], [time.weight_s for time in work]
        hidden_s = [time.hidden_s for time in work]
        return MicroBatchTimes([time.total_s for time in work], forward_s, hop_s, weight_s=weight_s, hidden_s=hidden_s)

    def ticks(self, pipeline: PipelinePlan) -> Ticks:
        times = self.micro_batch(pipeline)
        hops = [self._hop_s(pipeline, here, there) for here, there in pairwise(pipeline.chunks())]
        return ticks_of_seconds(times, hops)

    def _hop_s(self, pipeline: PipelinePlan, here: Chunk, there: Chunk) -> tuple[float, float, float]:
        """Activation, gradient, and latency; behind a message of every other pipeline that shares the link."""
        ends = pipeline.stages[here.stage].pool, pipeline.stages[there.stage].pool
        topology, workload = self.problem.topology, self.problem.workload
        link, units = topology.link(*ends), workload.at(topology.crossing(*ends)).units
        size_s = units[here.units[1] - 1].boundary_bytes * pipeline.micro_batch / link.bytes_per_s
        size_s *= self._sharing[frozenset(ends)]
        return size_s * link.activation_ratio, size_s * link.gradient_ratio, link.latency_s

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
