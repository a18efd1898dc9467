"""Who owns what after units have changed hands: as little as may be moves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from balancer.cost.workload import Workload
from balancer.plan.plan import Place, Plan, Range, StagePlan


def with_owners(before: Plan, after: Plan, workload: Workload) -> Plan:
    """`after`, of the same stages, each of which goes on to own what it still holds; what nobody owns then goes to whom
    holds it and owns least. A unit that uses another's weight may have to follow it, so a tied model's plan with such
    units is left to be completed."""
    owned = {
        place: {*then.owned_units()} & {*now.unit_indices()}
        for (place, then), (_, now) in zip(before.stages(), after.stages(), strict=True)
    }
    lost = [u for u in range(len(workload.units)) if not any(u in units for units in owned.values())]
    if lost and workload.tied:
        return _owning(after, dict.fromkeys(owned))
    for unit in lost:
        holders = [(place, stage) for place, stage in after.stages() if unit in stage.unit_indices()]
        place, _ = min(holders, key=lambda held: (_burden(held[1], owned[held[0]], workload), held[0]))
        owned[place].add(unit)
    return _owning(after, {place: _ranges(units) for place, units in owned.items()})


def _burden(stage: StagePlan, units: Iterable[int], workload: Workload) -> float:
    return sum(workload.units[u].trained for u in units) / stage.tp


def _owning(plan: Plan, owns: dict[Place, tuple[Range, ...] | None]) -> Plan:
    return plan.with_stages(lambda place, stage: stage.model_copy(update={"owns": owns[place]}))


def _ranges(units: Iterable[int]) -> tuple[Range, ...]:
    """As maximal half-open ranges."""
    runs = ([u for _, u in run] for _, run in groupby(enumerate(sorted(units)), key=lambda pair: pair[1] - pair[0]))
    return tuple((run[0], run[-1] + 1) for run in runs)
