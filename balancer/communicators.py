"""How many communicators of its family's collectives a chip is in under a plan, and the memory that they take."""

from __future__ import annotations

from itertools import pairwise

from backends.chip import ChipSpec
from balancer.plan import Place, Plan, StagePlan


def communicator_bytes(plan: Plan, place: Place, chip: ChipSpec) -> int:
    """On each chip of one stage: of its pool's world, of its tensor-parallel group, and with the chips that it sends to
    or receives from, for each flow and direction one."""
    groups = (_chips(plan, place) > 1) + (_stage(plan, place).tp > 1)
    return groups * chip.communicator_bytes + _pairs(plan, place) * chip.pair_communicator_bytes


def _pairs(plan: Plan, place: Place) -> int:
    """Neighbours of the pool in its pipeline, for activations and gradients; stages of the pool in other pipelines that
    hold units of this one's, for gradients and parameters."""
    mine, pool = set(_stage(plan, place).unit_indices()), _stage(plan, place).pool
    crossed = [(a, b) for a, b in pairwise(plan.pipelines[place[0]].stage_of_chunk()) if a != b and place[1] in (a, b)]
    beside = sum(_stage(plan, (place[0], s)).pool == pool for pair in crossed for s in pair if s != place[1])
    copies = sum(
        other != place and stage.pool == pool and not mine.isdisjoint(stage.unit_indices())
        for other, stage in plan.stages()
    )
    return 2 * (beside + copies)


def _chips(plan: Plan, place: Place) -> int:
    """Of the place's pool, as far as the plan uses them."""
    pool = _stage(plan, place).pool
    return sum(stage.tp for _, stage in plan.stages() if stage.pool == pool)


def _stage(plan: Plan, place: Place) -> StagePlan:
    return plan.pipelines[place[0]].stages[place[1]]
