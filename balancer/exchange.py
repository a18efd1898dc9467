"""What pipelines owe each other in a step: gradients to owners, parameters back to every other copy."""

from __future__ import annotations

from collections import Counter

from balancer.plan import Place, Plan
from balancer.workload import Workload

Debts = dict[tuple[int, int], dict[Place, int]]


def gradient_debts(plan: Plan, workload: Workload) -> Debts:
    """By (pipeline, chunk): how many parameters' gradients go to which owner once the chunk's backward passes are done.
    A tied weight that a stage uses twice is one copy there, and is due with its first unit."""
    owners = owner_places(plan)
    first_use = {later: first for first, later in workload.tied}
    debts: Debts = {}
    for p, pipeline in enumerate(plan.pipelines):
        for chunk in pipeline.chunks():
            held = pipeline.stages[chunk.stage].unit_indices()
            due: Counter[Place] = Counter()
            for u in range(*chunk.units):
                due[owners[u]] += workload.units[u].parameters
                if u in first_use and first_use[u] not in held:
                    due[owners[first_use[u]]] += workload.units[first_use[u]].parameters
            debts[p, chunk.index] = {owner: n for owner, n in due.items() if owner != (p, chunk.stage)}
    return debts


def owner_places(plan: Plan) -> dict[int, Place]:
    """The stage that owns each unit of a completed plan."""
    return {u: place for place, stage in plan.stages() for u in stage.owned_units()}


def parameter_returns(plan: Plan, debts: Debts) -> Counter[tuple[Place, Place]]:
    """Parameters that go back after STEP, by (owner, holder)."""
    returns: Counter[tuple[Place, Place]] = Counter()
    for p, pipeline in enumerate(plan.pipelines):
        for chunk in pipeline.chunks():
            for owner, parameters in debts[p, chunk.index].items():
                returns[owner, (p, chunk.stage)] += parameters
    return returns
