"""Who holds, and who owns, each logical tensor under a plan.

Holders are the stages that have a copy of a tensor: one per pipeline, or more where a tied weight is used on two
stages. One of them is the owner: it sums the gradients of all, updates, and sends the parameters back (law 9). The sum
goes pool by pool, in pipeline order inside each. Of a frozen tensor it alone saves what it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from balancer.plan.plan import Plan, StagePlan, owner_of, stage_ranks
from bridge.layout.axes import Axes
from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement
from bridge.precision import ITEM_BYTES
from bridge.rank import RankId


@dataclass(frozen=True)
class Holder:
    """A stage that has a copy of a tensor. `chunks` are the stage's chunks that use it."""

    pipeline: int
    stage: int
    chunks: frozenset[int]
    placement: Placement

    @property
    def place(self) -> tuple[int, int]:
        return self.pipeline, self.stage

    @property
    def pool(self) -> str:
        return self.placement.ranks[0].pool


@dataclass(frozen=True)
class PoolHolders:
    """A tensor's holders in one pool, in pipeline order. At the `hub`, which has each part once, the pool adds up its
    gradients, and from there its holders get their parameters: between pools either crosses once."""

    pool: str
    holders: tuple[Holder, ...]
    hub: Placement

    @property
    def contributions(self) -> tuple[Placement, ...]:
        """What the pool's gradient is the sum of, in this order."""
        return tuple(part for holder in self.holders for part in contributions(holder))

    @property
    def others(self) -> set[RankId]:
        """Chips of the pool that hold some of the tensor beside the hub."""
        return {rank for holder in self.holders for rank in holder.placement.regions} - set(self.hub.ranks)


@dataclass(frozen=True)
class Holding:
    """A logical tensor with its holders in pipeline order; `owner` indexes them; `unit` is its first use."""

    name: str
    unit: int
    holders: tuple[Holder, ...]
    owner: int
    trains: bool = True

    @cached_property
    def owners(self) -> Placement:
        """The owner without its replicas: one rank per distinct part."""
        return first_replicas(self.holders[self.owner].placement, 0)

    @cached_property
    def pools(self) -> tuple[PoolHolders, ...]:
        """The holders pool by pool, in the order of their first pipelines. The hub of the owner's pool is the owner; in
        any other the holders take turns from unit to unit, so that each has its part of the work."""
        owner, grouped = self.holders[self.owner].pool, dict[str, list[Holder]]()
        for holder in self.holders:
            grouped.setdefault(holder.pool, []).append(holder)
        return tuple(
            PoolHolders(
                pool, tuple(found), self.owners if pool == owner else first_replicas(self._hub(found).placement, 0)
            )
            for pool, found in grouped.items()
        )

    def _hub(self, found: Sequence[Holder]) -> Holder:
        return found[self.unit % len(found)]

    @property
    def route(self) -> tuple[tuple[int, int], ...]:
        """Tensors of one route travel together: places of all holders, the owner's first, and of the pools' hubs."""
        owner = self.holders[self.owner]
        hubs = (self._hub(p.holders).place for p in self.pools if p.pool != owner.pool and len(p.holders) > 1)
        return (owner.place, *(holder.place for holder in self.holders), *hubs)


def alike(tensors: Sequence[Holding], precisions: Mapping[str, str]) -> list[list[Holding]]:
    """The tensors with only those holders that compute in one precision, for each precision: their copies are equal."""
    groups = []
    for precision in dict.fromkeys(precisions.values()):
        held = ((h, tuple(one for one in h.holders if precisions[one.pool] == precision)) for h in tensors)
        groups.append([h if some == h.holders else replace(h, holders=some, owner=0) for h, some in held if some])
    return groups


def contributions(holder: Holder) -> list[Placement]:
    """What a holder adds to the gradient: itself once, or each of its replicas where their gradients are summed."""
    if holder.placement.layout.gradients == "equal":
        return [holder.placement]
    replicas = len(holder.placement.layout.replica_groups()[0])
    return [first_replicas(holder.placement, replica) for replica in range(replicas)]


@lru_cache(maxsize=4096)  # the tensors of a model repeat a few placements layer after layer
def first_replicas(placement: Placement, replica: int) -> Placement:
    """The placement with one position per distinct part: the `replica`-th that holds it."""
    layout = placement.layout
    chosen = sorted(group[replica] for group in layout.replica_groups())
    regions = tuple(layout.regions[position] for position in chosen)
    ranks = tuple(placement.ranks[position] for position in chosen)
    return Placement(TensorLayout(layout.shape, regions, layout.gradients), ranks)


class Ways(NamedTuple):
    """How the ranks of a stage hold its tensors: along which axes they lie, whether they have rows of the stream or all
    of it, and some experts whole or a slice of each."""

    axes: Axes
    sequence_parallel: bool
    spread: bool

    @classmethod
    def of(cls, stage: StagePlan) -> Ways:
        return cls(stage.axes, stage.sequence_parallel, stage.experts == "spread")


def holdings(
    plan: Plan,
    layouts: Mapping[tuple[int, Ways], Mapping[str, TensorLayout]],
    frozen: Collection[str] = frozenset(),
) -> list[Holding]:
    """All tensors of the model. `layouts[unit, ways]` names the tensors of a unit and lays them out over the ranks of a
    stage that hold them so."""
    uses: dict[str, list[tuple[int, Holder]]] = {}
    for pipeline, parts in enumerate(plan.pipelines):
        for chunk in parts.chunks():
            ranks, stage = stage_ranks(plan, pipeline, chunk.stage), parts.stages[chunk.stage]
            for unit in range(*chunk.units):
                for name, layout in layouts[unit, Ways.of(stage)].items():
                    holder = Holder(pipeline, chunk.stage, frozenset({chunk.index}), Placement(layout, ranks))
                    uses.setdefault(name, []).append((unit, holder))
    return [_holding(plan, name, found, name not in frozen) for name, found in uses.items()]


def _holding(plan: Plan, name: str, uses: list[tuple[int, Holder]], trains: bool) -> Holding:
    unit = min(unit for unit, _ in uses)
    holders = _merge(holder for _, holder in sorted(uses, key=lambda use: (use[1].pipeline, use[0])))
    places = [holder.place for holder in holders]
    owner = places.index(owner_of(plan, unit))
    return Holding(name, unit, holders, owner if trains else _widest(plan, holders, owner), trains)


def _widest(plan: Plan, holders: Sequence[Holder], owner: int) -> int:
    """The owner, unless somebody has more of each value: what is frozen has no float32 master."""
    precisions = plan.precisions()
    sizes = [ITEM_BYTES[precisions[holder.pool]] for holder in holders]
    return owner if sizes[owner] == max(sizes) else sizes.index(max(sizes))


def _merge(holders: Iterable[Holder]) -> tuple[Holder, ...]:
    """Two uses on one stage share one parameter, and so are one holder."""
    merged: dict[tuple[int, int], Holder] = {}
    for holder in holders:
        known = merged.get(holder.place)
        chunks = holder.chunks | known.chunks if known else holder.chunks
        merged[holder.place] = Holder(holder.pipeline, holder.stage, chunks, holder.placement)
    return tuple(merged.values())
