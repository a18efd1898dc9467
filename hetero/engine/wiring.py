"""What a plan connects: native groups, the holders of every tensor, and the flows over stage boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from balancer.plan import Plan
from bridge.layout import TensorLayout
from bridge.precision import crossing
from bridge.rank import RankId
from bridge.reshard import Placement, reshard
from hetero.engine.executor import FlowKey
from hetero.engine.flow import Carriers, Flow
from hetero.engine.ownership import Holding, holdings
from hetero.engine.spec import RunSpec
from hetero.engine.stage import DTYPES, Place, places
from hetero.engine.sync import LINES
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.models.registry import architecture


class EpochGroups:
    """The native groups of one epoch, made by every rank of the pool in the plan's order."""

    def __init__(self, spec: RunSpec, world: World) -> None:
        plan, me = spec.plan, world.rank
        self.tensor = TensorGroup()
        for place in places(plan):
            if place.ranks[0].pool == me.pool and len(place.ranks) > 1:
                group = world.group([rank.index for rank in place.ranks])
                if group is not None:
                    self.tensor = TensorGroup(len(place.ranks), place.ranks.index(me), group)
        active = [rank.index for rank in active_ranks(plan).get(me.pool, ())]
        self.active = world.group(active) if active else None
        self.pairwise = world.pairwise(lambda: _flows_inside(spec, me.pool))


def _flows_inside(spec: RunSpec, pool: str) -> list[str]:
    """Purpose and name of every line of flows that may run between two chips of the pool; the same for all of them."""
    boundaries = [
        f"{purpose} {_boundary_name(number, before.index)}"
        for number, pipeline in enumerate(spec.plan.pipelines)
        for before, after in pairwise(pipeline.chunks())
        if {pipeline.stages[chunk.stage].pool for chunk in (before, after)} == {pool}
        for purpose in ("activation", "gradient")
    ]
    return boundaries + [f"sync {name}" for name in LINES]


def active_ranks(plan: Plan) -> dict[str, Sequence[RankId]]:
    """The ranks that the plan uses, by pool, both in the plan's order."""
    found: dict[str, list[RankId]] = {}
    for place in places(plan):
        found.setdefault(place.ranks[0].pool, []).extend(place.ranks)
    return {pool: tuple(ranks) for pool, ranks in found.items()}


def tensor_holdings(spec: RunSpec) -> list[Holding]:
    """Every logical tensor of the model with its copies under the spec's plan."""
    model = architecture(spec.dimensions.family)
    layouts = {}
    for place in places(spec.plan):
        tp = len(place.ranks)
        for unit in spec.plan.pipelines[place.pipeline].stages[place.stage].unit_indices():
            if (unit, tp) not in layouts:
                found = model.tensors(spec.dimensions, unit, tp).values()
                layouts[unit, tp] = {tensor.name: tensor.layout for tensor in found}
    return holdings(spec.plan, layouts)


def boundary_flows(
    carriers: Carriers,
    plan: Plan,
    place: Place,
    sizes: dict[str, int],
    shape_BT: tuple[int, int],
    group: TensorGroup,
) -> dict[FlowKey, Flow]:
    """The flows over the boundaries of a rank's pipeline that begin or end at its stage; `bridge.precision` says in
    what."""
    pipeline = plan.pipelines[place.pipeline]
    chunks = pipeline.chunks()
    window = min(pipeline.micro_batches, max(pipeline.warmups()) + 1)
    ranks = {found.stage: found.ranks for found in places(plan) if found.pipeline == place.pipeline}
    flows: dict[FlowKey, Flow] = {}
    for before, after in pairwise(chunks):
        ends = (before.stage, after.stage)
        if before.stage == after.stage or place.stage not in ends:
            continue
        dtype = DTYPES[crossing(*(str(pipeline.stages[stage].precision) for stage in ends))]
        for purpose, (source, target) in (("activation", ends), ("gradient", ends[::-1])):
            placements = [
                [_whole(shape_BT, size, ranks[stage]) for size in sizes.values()] for stage in (source, target)
            ]
            plans = [reshard(one, other) for one, other in zip(*placements, strict=True)]
            local = [placement.layout.shape if place.stage == target else None for placement in placements[1]]
            name = _boundary_name(place.pipeline, before.index)
            flow = Flow(carriers, purpose, name, plans, local, dtype, window, group.process_group)
            flows[purpose, before.index] = flow  # type: ignore[index]
    return flows


def _boundary_name(pipeline: int, chunk: int) -> str:
    """Of the boundary behind a chunk."""
    return f"pipeline{pipeline}.boundary{chunk}"


def _whole(shape_BT: tuple[int, int], size: int, ranks: Sequence[RankId]) -> Placement:
    """A boundary tensor, as (B * T, D), lies whole on every rank of a stage."""
    return Placement(TensorLayout.replicated((shape_BT[0] * shape_BT[1], size), len(ranks)), tuple(ranks))
