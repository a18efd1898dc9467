"""What the sync of gradients and the return of parameters keep on a chip, as `hetero/engine/sync.py` has them move.

Receives inside a pool are posted when a step begins, and what is sent lies packed until it has gone: both are there
beside whatever is computed. What crosses between pools lies in slots of host memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from balancer.exchange import Copies, shared_state
from balancer.plan import Place, Plan
from balancer.workload import Workload

GRADIENT_BYTES = 4  # summed in float32 over micro-batches and pipelines


@dataclass(frozen=True)
class Staging:
    """Bytes per chip for one unit, or for many. Posted when a step begins: `arriving` gradients, and `returning`
    parameters. `packed` are gradients from the unit's last backward on, `summed` the sums that the owner updates by,
    `returned` the parameters on their way to other copies."""

    arriving: int = 0
    returning: int = 0
    packed: int = 0
    summed: int = 0
    returned: int = 0

    def after(self, updated: int, largest: int) -> int:
        """The most that is there once all is computed: while gradients are summed, the `largest` unit's twice, or while
        parameters go back, the `updated` ones beside their masters."""
        back = self.summed + updated + self.returned
        return self.packed + self.returning + max(self.arriving + min(self.summed, largest), back)


def staging(workload: Workload, plan: Plan, place: Place, weight_bytes: int) -> dict[int, Staging]:
    """By unit of one stage of a completed plan, whose weights have `weight_bytes` each; without units of one copy."""
    return {
        copies.uses[place][0][2]: _of(copies, plan, place, weight_bytes)
        for copies in shared_state(plan, workload)
        if place in copies.uses
    }


def total(parts: dict[int, Staging]) -> Staging:
    found = parts.values()
    return Staging(
        arriving=sum(one.arriving for one in found),
        returning=sum(one.returning for one in found),
        packed=sum(one.packed for one in found),
        summed=sum(one.summed for one in found),
        returned=sum(one.returned for one in found),
    )


def _of(copies: Copies, plan: Plan, place: Place, weight_bytes: int) -> Staging:
    pool, tp = _pool(plan, place), plan.pipelines[place[0]].stages[place[1]].tp
    others = sum(_pool(plan, use) == pool for use in copies.uses) - 1
    here = copies.parameters // tp
    if copies.hubs[pool] != place:
        return Staging(returning=weight_bytes * here, packed=GRADIENT_BYTES * here)
    return Staging(
        arriving=GRADIENT_BYTES * here * others,
        summed=GRADIENT_BYTES * here if copies.owner == place else 0,
        returned=weight_bytes * here * others,
    )


def _pool(plan: Plan, place: Place) -> str:
    return plan.pipelines[place[0]].stages[place[1]].pool
