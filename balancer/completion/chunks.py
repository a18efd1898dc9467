"""Which chunks a stage has, where its schedule wants several and the plan says one range."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise

from balancer.cost.workload import Workload
from balancer.errors import PlanError
from balancer.plan.plan import PipelinePlan, Plan, Range
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import Placed


def lay_chunks(plan: Plan, workload: Workload) -> Plan:
    """Stages with one range each get their schedule's chunks, of about as many units as that range has. Raises
    PlanError if the model cannot be cut so often."""
    pipelines = tuple(
        _laid(f"pipelines[{p}]", pipeline, schedule(plan.schedule).wanted_placement(len(pipeline.stages)), workload)
        for p, pipeline in enumerate(plan.pipelines)
    )
    return plan.model_copy(update={"pipelines": pipelines})


def _laid(key: str, pipeline: PipelinePlan, wanted: Placed | None, workload: Workload) -> PipelinePlan:
    stages = pipeline.stages
    if wanted is None or len(stages) == 1 or any(len(stage.units) > 1 for stage in stages):
        return pipeline
    if len(workload.cuts) <= len(wanted):
        rule = f"{len(wanted)} chunks on {len(stages)} stages, and the model can be cut into {len(workload.cuts) - 1}"
        raise PlanError(f"{key}.stages", len(stages), rule, "use fewer stages, or another schedule")
    order = sorted(range(len(stages)), key=lambda s: stages[s].units)
    placed, times = [order[s] for s in wanted], Counter(wanted)
    sizes = [len(stages[stage].unit_indices()) / times[s] for s, stage in zip(wanted, placed, strict=True)]
    units: dict[int, list[Range]] = defaultdict(list)
    for stage, chunk in zip(placed, pairwise(_bounds(sizes, workload.cuts)), strict=True):
        units[stage].append(chunk)
    laid = (stage.model_copy(update={"units": tuple(units[s])}) for s, stage in enumerate(stages))
    return pipeline.model_copy(update={"stages": tuple(laid)})


def _bounds(sizes: Sequence[float], cuts: Sequence[int]) -> list[int]:
    """Cuts next to where chunks of these sizes would end, none of them empty."""
    bounds, at = [0], 0
    for number, end in enumerate(accumulate(sizes[:-1]), 1):
        room = range(at + 1, len(cuts) - len(sizes) + number)
        at = min(room, key=lambda place: abs(cuts[place] - end))
        bounds.append(cuts[at])
    return [*bounds, cuts[-1]]
