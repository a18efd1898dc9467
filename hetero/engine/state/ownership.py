"""Who holds, and who owns, each logical tensor under a plan.

Copies are the tensor-parallel groups that hold a tensor: one per pipeline, or more where a tied weight is used on two
stages. One copy is the owner: it sums the gradients of all, updates, and sends the parameters back (law 9). The sum
goes pool by pool, in pipeline order inside each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from balancer.plan.plan import Plan, owner_of, stage_ranks
from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement
from bridge.rank import RankId


@dataclass(frozen=True)
class Copy:
    """One stage's copy of a tensor. `chunks` are the stage's chunks that use it."""

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
class PoolCopies:
    """A pool's copies of a tensor in pipeline order. At the `hub`, which has each part once, the pool adds up its
    gradients, and from there its copies get their parameters: between pools either crosses once."""

    pool: str
    copies: tuple[Copy, ...]
    hub: Placement

    @property
    def contributions(self) -> tuple[Placement, ...]:
        """What the pool's gradient is the sum of, in this order."""
        return tuple(part for copy in self.copies for part in contributions(copy))

    @property
    def others(self) -> set[RankId]:
        """Chips of the pool that hold some of the tensor beside the hub."""
        return {rank for copy in self.copies for rank in copy.placement.ranks} - set(self.hub.ranks)


@dataclass(frozen=True)
class Holding:
    """A logical tensor with its copies in pipeline order; `owner` indexes them; `unit` is its first use."""

    name: str
    unit: int
    copies: tuple[Copy, ...]
    owner: int

    @cached_property
    def owners(self) -> Placement:
        """The owner copy without its replicas: one rank per distinct part."""
        return first_replicas(self.copies[self.owner].placement, 0)

    @cached_property
    def pools(self) -> tuple[PoolCopies, ...]:
        """The copies pool by pool, in the order of their first pipelines. The hub of the owner's pool is the owner; in
        any other the copies take turns from unit to unit, so that each has its part of the work."""
        owner, grouped = self.copies[self.owner].pool, dict[str, list[Copy]]()
        for copy in self.copies:
            grouped.setdefault(copy.pool, []).append(copy)
        return tuple(
            PoolCopies(
                pool, tuple(found), self.owners if pool == owner else first_replicas(self._hub(found).placement, 0)
            )
            for pool, found in grouped.items()
        )

    def _hub(self, found: Sequence[Copy]) -> Copy:
        return found[self.unit % len(found)]

    @property
    def route(self) -> tuple[tuple[int, int], ...]:
        """Tensors of one route travel together: the places of all copies, the owner's first, and of the pools' hubs."""
        owner = self.copies[self.owner]
        hubs = (self._hub(p.copies).place for p in self.pools if p.pool != owner.pool and len(p.copies) > 1)
        return (owner.place, *(copy.place for copy in self.copies), *hubs)


def alike(tensors: Sequence[Holding], precisions: Mapping[str, str]) -> list[list[Holding]]:
    """The tensors with only those copies that pools of one precision hold, for each precision: these are equal."""
    groups = []
    for precision in dict.fromkeys(precisions.values()):
        held = ((h, tuple(copy for copy in h.copies if precisions[copy.pool] == precision)) for h in tensors)
        groups.append([h if copies == h.copies else replace(h, copies=copies, owner=0) for h, copies in held if copies])
    return groups


def contributions(copy: Copy) -> list[Placement]:
    """What a copy adds to the gradient: itself once, or each of its replicas where their gradients are summed."""
    if copy.placement.layout.gradients == "equal":
        return [copy.placement]
    replicas = len(copy.placement.layout.replica_groups()[0])
    return [first_replicas(copy.placement, replica) for replica in range(replicas)]


def first_replicas(placement: Placement, replica: int) -> Placement:
    """The placement with one position per distinct part: the `replica`-th that holds it."""
    layout = placement.layout
    chosen = sorted(group[replica] for group in layout.replica_groups())
    bounds = tuple(layout.bounds[position] for position in chosen)
    return Placement(
        TensorLayout(layout.shape, layout.dim, bounds, layout.gradients),
        tuple(placement.ranks[position] for position in chosen),
    )


def holdings(plan: Plan, layouts: dict[tuple[int, int], dict[str, TensorLayout]]) -> list[Holding]:
    """All tensors of the model. `layouts[unit, tp]` names the tensors of a unit and lays them out over tp positions."""
    uses: dict[str, list[tuple[int, Copy]]] = {}
    for pipeline, parts in enumerate(plan.pipelines):
        for chunk in parts.chunks():
            ranks = stage_ranks(plan, pipeline, chunk.stage)
            for unit in range(*chunk.units):
                for name, layout in layouts[unit, len(ranks)].items():
                    copy = Copy(pipeline, chunk.stage, frozenset({chunk.index}), Placement(layout, ranks))
                    uses.setdefault(name, []).append((unit, copy))
    return [_holding(plan, name, found) for name, found in uses.items()]


def _holding(plan: Plan, name: str, uses: list[tuple[int, Copy]]) -> Holding:
    unit = min(unit for unit, _ in uses)
    copies = _merge(copy for _, copy in sorted(uses, key=lambda use: (use[1].pipeline, use[0])))
    places = [copy.place for copy in copies]
    return Holding(name, unit, copies, places.index(owner_of(plan, unit)))


def _merge(copies: Iterable[Copy]) -> tuple[Copy, ...]:
    """Two uses on one stage share one parameter, and so are one copy."""
    merged: dict[tuple[int, int], Copy] = {}
    for copy in copies:
        known = merged.get(copy.place)
        chunks = copy.chunks | known.chunks if known else copy.chunks
        merged[copy.place] = Copy(copy.pipeline, copy.stage, chunks, copy.placement)
    return tuple(merged.values())


def position_of(placement: Placement, rank: RankId) -> int | None:
    """The rank's position in a placement, None where it has none."""
    return placement.ranks.index(rank) if rank in placement.ranks else None
