"""What a chip needs to compute a unit of another pool's stage again (hetero/engine/shadow), one at a time.

It does so when its own stage has computed and before that updates: beside its weights, gradients and moments, and in
place of activations.
"""

from __future__ import annotations

from balancer.cost.workload import Workload
from balancer.memory.tied import parameters_with_tied
from balancer.plan.plan import Place, Plan
from bridge.precision import ITEM_BYTES

BOUNDARIES = 3
"""On the chip beside what the unit computes: what it is given, and the gradients of that and of what it gives."""


def shadow_place(plan: Plan, pool: str) -> Place | None:
    """The stage whose first chip computes units again: the pool's first, if the plan has stages of others too."""
    places = [place for place, stage in plan.stages() if stage.pool == pool]
    others = any(stage.pool != pool for _, stage in plan.stages())
    return places[0] if places and others else None


def shadow_bytes(workload: Workload, plan: Plan, place: Place, summed: int) -> int:
    """Of a chip of a stage, for the largest unit that it computes again, beside the sums that it is about to update by;
    0 for all stages but one."""
    if workload.shadow is None or shadow_place(plan, workload.shadow) != place:
        return 0
    own = str(plan.pipelines[place[0]].stages[place[1]].precision)
    unlike = {
        (plan.pipelines[pipeline].micro_batch, str(stage.precision), stage.unit_indices())
        for (pipeline, _), stage in plan.stages()
        if stage.pool != workload.shadow
    }
    found = (_unit_bytes(workload, unit, size, own, given) for size, given, units in unlike for unit in units)
    return summed + round(max(found))


def _unit_bytes(workload: Workload, unit: int, micro_batch: int, own: str, given: str) -> float:
    """In the pool's `own` precision; tensors that come in another are there twice for a moment."""
    at = workload.at(own)
    work, boundary = at.units[unit], max(one.boundary_bytes for one in at.units)
    item_bytes = ITEM_BYTES[own] + (ITEM_BYTES[given] if given != own else 0)
    masks = sum((work.masks if workload.packed else work.plain_masks).values())
    beside = max(work.forward_bytes, work.remade.on_rank(1) + work.backward_bytes)
    kept = work.kept_bytes(1) + beside + (BOUNDARIES + 1) * boundary + masks
    return sum(parameters_with_tied(at, [unit])) * item_bytes + micro_batch * kept
