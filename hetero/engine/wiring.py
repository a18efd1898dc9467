"""What a plan connects: native groups, the holders of every tensor, and the flows over stage boundaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from backends.communicator import Communicator
from balancer.plan.plan import Plan, StagePlan
from balancer.schedule.action import Action, Actions, Kind, Purpose
from bridge.layout.layout import TensorLayout, even_bounds
from bridge.layout.reshard import Placement, Reshard, reshard
from bridge.precision import crossing
from bridge.rank import RankId
from hetero.engine.state.ownership import Holding, Ways, holdings
from hetero.engine.step.executor import FlowKey
from hetero.engine.step.stage import DTYPES, RankPlace, places
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.models.registry import architecture
from hetero.transfer.flow import Flow
from hetero.transfer.native_messages import greet
from hetero.transfer.point_to_point import PointToPoint
from hetero.words.spec import RunSpec


class EpochGroups:
    """The native groups of one epoch, made by every rank of the pool in the plan's order, and its first contacts.

    A chip has at most one communicator of its tensor-parallel group, one of those that it shares state with, and one
    for each direction to each chip that a stage boundary joins it with.
    """

    def __init__(self, spec: RunSpec, world: World, tensors: Sequence[Holding]) -> None:
        plan, me = spec.plan, world.rank
        self.tensor = TensorGroup()
        for place in places(plan):
            for ranks in _tensor_groups(place, me.pool):
                found = world.communicator(f"tensor group of {place}", [rank.index for rank in ranks])
                if found is not None:
                    stage = _stage(plan, place)
                    ways = stage.sequence_parallel, stage.tp_slices, stage.experts == "spread"
                    self.tensor = TensorGroup(len(ranks), ranks.index(me), found, *ways)
        self.shared = self._share(world, plan, tensors)
        pairs = _pairs(spec, me.pool)
        self.up, self.down = (
            world.communicator(f"stages, to {way} numbers", range(world.size)) if pairs else None
            for way in ("higher", "lower")
        )
        self._meet(me.index, pairs)
        active = [rank.index for rank in active_ranks(plan).get(me.pool, ())]
        self.active = world.group(active) if active else None

    def _share(self, world: World, plan: Plan, tensors: Sequence[Holding]) -> Communicator | None:
        """Of the chips that this one shares state with: its tensor-parallel group where there are no others."""
        me, found = world.rank, None
        groups = [{rank.index for rank in ranks} for place in places(plan) for ranks in _tensor_groups(place, me.pool)]
        for members in sharing(tensors, me.pool):
            if len(members) > 1 and members not in groups:
                found = world.communicator("shared state", sorted(members)) or found
            elif len(members) > 1 and me.index in members:
                found = self.tensor.communicator
        return found

    def _meet(self, me: int, pairs: Sequence[tuple[int, int]]) -> None:
        """All first contacts, in one order for everyone: the host stands still in each until the others have come."""
        if self.tensor.communicator is not None:
            self.tensor.communicator.meet()
        if self.shared is not None and self.shared is not self.tensor.communicator:
            self.shared.meet()
        if self.up is not None and self.down is not None:
            greet(self.up, self.down, me, pairs)


def _tensor_groups(place: RankPlace, pool: str) -> list[tuple[RankId, ...]]:
    """Those of a stage whose ranks have something to say to each other, if the stage is the pool's."""
    found = place.groups("tp") if place.ranks[0].pool == pool else []
    return [ranks for ranks in found if len(ranks) > 1]


def sharing(tensors: Iterable[Holding], pool: str) -> list[set[int]]:
    """The chips of a pool in sets that share no state with each other, by their lowest number. What is frozen is
    nobody's to tell."""
    sets: list[set[int]] = []
    for holding in (one for one in tensors if one.trains):
        ours = {rank.index for holder in holding.holders for rank in holder.placement.regions if rank.pool == pool}
        if ours:
            joined = ours.union(*(one for one in sets if one & ours))
            sets = [one for one in sets if not one & ours] + [joined]
    return sorted(sets, key=min)


def _pairs(spec: RunSpec, pool: str) -> list[tuple[int, int]]:
    """The chips of a pool, (source, target), between which boundaries lie."""
    sizes = architecture(spec.model).boundary
    found: set[tuple[int, int]] = set()
    for place in places(spec.plan):
        shape = (spec.plan.pipelines[place.pipeline].micro_batch, spec.text.seq_len)
        for boundary in _boundaries(spec.plan, place, sizes, shape):
            pieces = (piece for way in boundary.reshards for piece in way.pieces)
            found |= {(p.source.index, p.target.index) for p in pieces if p.source.pool == p.target.pool == pool}
    return sorted(found)


def active_ranks(plan: Plan) -> dict[str, Sequence[RankId]]:
    """The ranks that the plan uses, by pool, both in the plan's order."""
    found: dict[str, list[RankId]] = {}
    for place in places(plan):
        found.setdefault(place.ranks[0].pool, []).extend(place.ranks)
    return {pool: tuple(ranks) for pool, ranks in found.items()}


def tensor_holdings(spec: RunSpec) -> list[Holding]:
    """Every logical tensor of the model with its holders under the spec's plan."""
    model = architecture(spec.model, spec.train.tuning)
    layouts = {}
    for place in places(spec.plan):
        axes, ways = place.axes, Ways.of(_stage(spec.plan, place))
        for unit in _stage(spec.plan, place).unit_indices():
            if (unit, ways) not in layouts:
                found = model.tensors(unit, axes.extent("tp"), ways.sequence_parallel, ways.spread).values()
                layouts[unit, ways] = {tensor.name: axes.spread(tensor.layout, "tp") for tensor in found}
    return holdings(spec.plan, layouts, model.frozen)


def _stage(plan: Plan, place: RankPlace) -> StagePlan:
    return plan.pipelines[place.pipeline].stages[place.stage]


class _Boundary(NamedTuple):
    """What crosses between two chunks in one direction, from stage to stage."""

    key: FlowKey
    name: str
    stages: tuple[int, int]
    reshards: list[Reshard]
    targets: list[Placement]


def _boundaries(
    plan: Plan, place: RankPlace, sizes: Mapping[str, int], shape_BT: tuple[int, int]
) -> Iterator[_Boundary]:
    """Those of a pipeline that begin or end at a stage."""
    pipeline = plan.pipelines[place.pipeline]
    ranks = {found.stage: found.ranks for found in places(plan) if found.pipeline == place.pipeline}
    for before, after in pairwise(pipeline.chunks()):
        ends = (before.stage, after.stage)
        if before.stage == after.stage or place.stage not in ends:
            continue
        directions: tuple[tuple[Purpose, tuple[int, int]], ...] = (("activation", ends), ("gradient", ends[::-1]))
        for purpose, (source, target) in directions:
            placements = [
                [
                    stream_placement(shape_BT, size, ranks[stage], pipeline.stages[stage].sequence_parallel)
                    for size in sizes.values()
                ]
                for stage in (source, target)
            ]
            reshards = [reshard(one, other) for one, other in zip(*placements, strict=True)]
            name = _boundary_name(place.pipeline, before.index)
            yield _Boundary((purpose, before.index), name, (source, target), reshards, placements[1])


def boundary_flows(
    messenger: PointToPoint,
    plan: Plan,
    place: RankPlace,
    sizes: Mapping[str, int],
    shape_BT: tuple[int, int],
    group: TensorGroup,
) -> dict[FlowKey, Flow]:
    """The flows over the boundaries of a rank's pipeline that begin or end at its stage; `bridge.precision` says in
    what."""
    pipeline = plan.pipelines[place.pipeline]
    window = min(pipeline.micro_batches, max(pipeline.warmups()) + 1)
    flows: dict[FlowKey, Flow] = {}
    for key, name, stages, reshards, targets in _boundaries(plan, place, sizes, shape_BT):
        local = [target.local_shape(messenger.me) for target in targets]
        precision = crossing(*(str(pipeline.stages[stage].precision) for stage in stages))
        flows[key] = Flow(messenger, key[0], name, reshards, local, DTYPES[precision], window, group.communicator)
    return flows


Orders = dict[int, list[tuple[Purpose, str]]]


def native_orders(plan: Plan, place: RankPlace, lists: Sequence[Actions]) -> Orders:
    """What each chip of a rank's pipeline sends to the rank's stage when the stages run these lists, in its order."""
    placed = plan.pipelines[place.pipeline].stage_of_chunk()
    orders: Orders = {}
    for other in (found for found in places(plan) if found.pipeline == place.pipeline):
        order = [
            (action.purpose, _boundary_name(place.pipeline, action.boundary))
            for action in lists[other.stage]
            if action.kind is Kind.SEND and action.purpose is not None and _target(action, placed) == place.stage
        ]
        orders |= {rank.index: order for rank in other.ranks if rank.pool == place.ranks[0].pool}
    return orders


def _target(action: Action, stage_of_chunk: Sequence[int]) -> int:
    """The stage that a SEND goes to."""
    return stage_of_chunk[action.chunk + (1 if action.purpose == "activation" else -1)]


def _boundary_name(pipeline: int, chunk: int) -> str:
    """Of the boundary behind a chunk."""
    return f"pipeline{pipeline}.boundary{chunk}"


def stream_placement(
    shape_BT: tuple[int, int], size: int, ranks: Sequence[RankId], sequence_parallel: bool
) -> Placement:
    """A boundary tensor, as (B * T, D), lies whole on every rank of a stage, or, if that is sequence-parallel, in rows,
    in the order of the ranks' numbers, which is their communicator's."""
    shape = (shape_BT[0] * shape_BT[1], size)
    if not sequence_parallel:
        return Placement(TensorLayout.replicated(shape, len(ranks)), tuple(ranks))
    bounds = dict(zip(sorted(rank.index for rank in ranks), even_bounds(shape[0], len(ranks)), strict=True))
    return Placement(TensorLayout.cut(shape, 0, [bounds[rank.index] for rank in ranks]), tuple(ranks))
