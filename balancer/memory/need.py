"""What the stages of a plan need of their chips' memory, for whoever asks."""

from __future__ import annotations

from balancer.memory.memory import MemoryNeed, stage_bytes
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem


def memory_need(plan: Plan, place: Place, problem: Problem) -> MemoryNeed:
    """Of one chip of a stage of a completed plan."""
    topology = problem.topology
    pool = topology.pool(plan.pipelines[place[0]].stages[place[1]].pool)
    crossing = topology.bucket_bytes, topology.codecs_between
    return stage_bytes(problem.workload, plan, *place, pool.precision, pool.chip, *crossing)
