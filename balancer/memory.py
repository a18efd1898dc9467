"""How many bytes a stage needs on each of its chips.

After Korthikanti et al., "Reducing activation recomputation in large transformer models": what tp divides is counted by
unit (`activation_bytes`), what it does not (a unit's input, kept whole on every rank) is its boundary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from balancer.action import Actions, Kind
from balancer.plan import PipelinePlan, Plan
from balancer.schedule import actions_of
from balancer.workload import UnitWork, Workload
from bridge.precision import ITEM_BYTES

WEIGHT_BYTES = ITEM_BYTES
GRADIENT_BYTES = 4  # summed in float32 over micro-batches and pipelines
MESSAGES = 2  # kept for each boundary of a stage
_MOMENT_BYTES = 8  # AdamW's two, in float32


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes per chip."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    messages: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.messages

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations", "messages")
        listed = ", ".join(f"{part} {getattr(self, part) / 2**30:.2f}" for part in parts)
        return f"{self.total / 2**30:.2f} GiB ({listed})"


def stage_bytes(workload: Workload, plan: Plan, pipeline: int, stage: int, precision: str) -> MemoryNeed:
    """Of one stage of a completed plan. Activations are counted at their peak along the stage's own action list."""
    workload = workload.at(precision)
    owner, placed = plan.pipelines[pipeline], plan.pipelines[pipeline].stages[stage]
    held = sum(parameters_with_tied(workload, placed.unit_indices()))
    owned = sum(workload.units[u].parameters for u in placed.owned_units())
    kept = {
        chunk.index: sum(unit_activation_bytes(workload.units[u], placed.tp) for u in range(*chunk.units))
        for chunk in owner.chunks()
        if chunk.stage == stage
    }
    peak = owner.micro_batch * peak_in_flight(actions_of(owner, plan.schedule)[stage], kept)
    return MemoryNeed(
        weights=held * WEIGHT_BYTES[precision] // placed.tp,
        gradients=held * GRADIENT_BYTES // placed.tp,
        optimizer=owned * optimizer_bytes(precision) // placed.tp,
        activations=round(peak),
        messages=_message_bytes(workload, owner, stage),
    )


def _message_bytes(workload: Workload, pipeline: PipelinePlan, stage: int) -> int:
    """What crosses a stage's boundaries beside what is in use: as its rank is a message ahead of its chip, one has
    come early over each and one has not left yet."""
    crossed = [(a, b) for a, b in pairwise(pipeline.chunks()) if a.stage != b.stage and stage in (a.stage, b.stage)]
    return MESSAGES * pipeline.micro_batch * sum(workload.units[a.units[1] - 1].boundary_bytes for a, _ in crossed)


def parameters_with_tied(workload: Workload, units: Iterable[int]) -> list[int]:
    """Parameters of each unit; a unit that uses an earlier one's weight counts it where that one is not at hand."""
    held = list(units)
    borrowed = {later: workload.units[first].parameters for first, later in workload.tied if first not in held}
    return [workload.units[u].parameters + borrowed.get(u, 0) for u in held]


def optimizer_bytes(precision: str) -> int:
    """Per owned parameter: two moments, and a float32 master value where weights are narrower."""
    return _MOMENT_BYTES + (0 if precision == "float32" else 4)


def unit_activation_bytes(unit: UnitWork, tp: int) -> float:
    """Kept for backward on one rank, per sequence."""
    whole = min(unit.boundary_bytes, unit.activation_bytes)
    return whole + (unit.activation_bytes - whole) / tp


def peak_in_flight(actions: Actions, kept: dict[int, float]) -> float:
    """Largest sum of `kept` (by chunk) over micro-batches whose forward ran and whose backward did not end."""
    now = peak = 0.0
    for action in actions:
        if action.kind is Kind.F:
            now += kept[action.chunk]
            peak = max(peak, now)
        elif action.kind in (Kind.B, Kind.W):
            now -= kept[action.chunk]
    return peak
