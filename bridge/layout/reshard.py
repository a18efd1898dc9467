"""From any layout to any other: which box of a tensor goes from which rank to which.

Activations, gradient sync, tied weights, state that moves and checkpoints are all planned here. Both ends compute the
same plan from the same two placements, so nothing about it has to be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

from bridge.layout.layout import Bounds, LayoutError, Region, Shape, TensorLayout, even_bounds, overlap
from bridge.rank import RankId


@dataclass(frozen=True)
class Box:
    """A box of a logical tensor that a rank holds, or is to hold, as a tensor of its own."""

    rank: RankId
    region: Region


@dataclass(frozen=True)
class Placement:
    """A layout on named ranks: `ranks[i]` has position i, whether it holds anything there or not."""

    layout: TensorLayout
    ranks: tuple[RankId, ...]

    def __post_init__(self) -> None:
        if len(self.ranks) != self.layout.size or len(set(self.ranks)) != len(self.ranks):
            rule = f"a layout of {self.layout.size} positions lies on as many different ranks"
            raise LayoutError("ranks", [str(rank) for rank in self.ranks], rule, "give one rank per position")

    @cached_property
    def regions(self) -> dict[RankId, Region]:
        """What each rank holds, in the order of positions; ranks that hold nothing are not there."""
        pairs = zip(self.ranks, self.layout.regions, strict=True)
        return {rank: region for rank, region in pairs if region is not None}

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The same as boxes."""
        return tuple(Box(rank, region) for rank, region in self.regions.items())

    def local_shape(self, rank: RankId) -> Shape | None:
        """The shape of the tensor that a rank holds, None where it holds nothing."""
        region = self.regions.get(rank)
        return None if region is None else _shape(region)


@dataclass(frozen=True)
class Piece:
    """One box on its way. Slices are in the local coordinates of each side, one range per dimension."""

    source: RankId
    target: RankId
    source_slices: Region
    target_slices: Region

    @property
    def shape(self) -> Shape:
        return tuple(stop - start for start, stop in self.target_slices)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def local(self) -> bool:
        """Whether the bytes stay on their rank."""
        return self.source == self.target


@dataclass(frozen=True)
class Gather:
    """An exchange inside a native world: `ranks[i]` received `parts[i]` (local slices) of the shard that all need."""

    ranks: tuple[RankId, ...]
    parts: tuple[Region, ...]


@dataclass(frozen=True)
class Reshard:
    """What crosses, then what the replicas of a target shard exchange among themselves."""

    pieces: tuple[Piece, ...]
    gathers: tuple[Gather, ...]


@dataclass(frozen=True)
class _Demand:
    """A box of the logical tensor that a rank is to receive into its shard, which begins at `origin`."""

    rank: RankId
    region: Region
    origin: Shape


@lru_cache(maxsize=4096)  # the tensors of a model repeat a few placements layer after layer
def reshard(source: Placement, target: Placement) -> Reshard:
    """Plan the move of a tensor so that each byte crosses once per distinct target shard.

    Replicas of a target shard receive a part each and complete it by a gather, unless every dimension is smaller than
    their number: such a crumb is sent to each of them. Replicas of a source part share the sending evenly. What a rank
    already holds becomes a local piece. Raises LayoutError when the placements are of different tensors.
    """
    _check_same_tensor(source, target)
    demands: list[_Demand] = []
    gathers: list[Gather] = []
    for group in target.layout.replica_groups():
        ranks = tuple(target.ranks[position] for position in group)
        shard = target.layout.region(group[0])
        origin = _origin(shard)
        parts = _parts(shard, len(ranks))
        if len(ranks) == 1 or parts is None or all(_covers(source.regions.get(rank), shard) for rank in ranks):
            demands += [_Demand(rank, shard, origin) for rank in ranks]
        else:
            demands += [_Demand(rank, part, origin) for rank, part in zip(ranks, parts, strict=True)]
            gathers.append(Gather(ranks, tuple(_local(part, origin) for part in parts)))
    return Reshard(tuple(_pieces(source, demands)), tuple(gathers))


@lru_cache(maxsize=4096)
def copies(source: Placement, target: Placement) -> tuple[Piece, ...]:
    """Plan the same move without gathers: every target rank receives the whole of its shard.

    Raises LayoutError when the placements are of different tensors.
    """
    _check_same_tensor(source, target)
    demands = [_Demand(rank, shard, _origin(shard)) for rank, shard in target.regions.items()]
    return tuple(_pieces(source, demands))


@dataclass(frozen=True)
class _Supply:
    """What a rank can give of a tensor: a box of its shard, which begins at `origin`."""

    rank: RankId
    region: Region
    origin: Shape


Rounds = tuple[tuple[Piece, ...], tuple[Piece, ...]]


@lru_cache(maxsize=4096)
def relocate(held: tuple[Box, ...], wanted: tuple[Box, ...], made: tuple[Box, ...] = (), turn: int = 0) -> Rounds:
    """Plan how ranks come to the parts that they want of a tensor, in two rounds; either has a part per rank at most.

    What a rank holds itself stays, as local pieces. What another of its pool holds comes from there. All else crosses
    into a pool once, to who wants it first, and goes on from there in the second round, when the parts that are `made`
    are there too. `turn` tells who begins among senders that are alike. Raises LayoutError where nobody holds a part.
    """
    first: list[Piece] = []
    second: list[Piece] = []
    own = {box.rank: _supply(box) for box in held}
    arrived = [_supply(box) for box in made]
    for number, box in enumerate(wanted):
        rest = _take(first, [box.region], [own[box.rank]] if box.rank in own else [], box)
        if rest:
            others = _turned([supply for rank, supply in own.items() if rank != box.rank], turn + number)
            near, far = ([s for s in others if (s.rank.pool == box.rank.pool) is near] for near in (True, False))
            rest = _take(first, rest, near, box)
            rest = _take(second, rest, [s for s in arrived if s.rank.pool == box.rank.pool], box)
            arrived += [_Supply(box.rank, part, _origin(box.region)) for part in rest]
            rest = _take(first, rest, far, box)
        if rest:
            raise LayoutError("parts", rest, "no rank holds this part of the tensor", "load a checkpoint instead")
    return tuple(first), tuple(second)


def _take(pieces: list[Piece], rest: list[Region], supplies: Iterable[_Supply], box: Box) -> list[Region]:
    """Adds what these can give of the parts of a box that are still wanted. Returns those that are so then."""
    demand = _Demand(box.rank, box.region, _origin(box.region))
    for supply in supplies:
        if not rest:
            break
        left: list[Region] = []
        for part in rest:
            found = overlap(part, supply.region)
            if found is None:
                left.append(part)
                continue
            left += _without(part, found)
            pieces.append(_piece(supply.rank, supply.origin, demand, found))
        rest = left
    return rest


def _without(box: Region, hole: Region) -> Iterator[Region]:
    """The boxes that are left of a box without one inside it."""
    for dim, ((start, stop), (hole_start, hole_stop)) in enumerate(zip(box, hole, strict=True)):
        if start < hole_start:
            yield _with(box, dim, (start, hole_start))
        if hole_stop < stop:
            yield _with(box, dim, (hole_stop, stop))
        box = _with(box, dim, (hole_start, hole_stop))


def _supply(part: Box) -> _Supply:
    return _Supply(part.rank, part.region, _origin(part.region))


def _turned(row: list[_Supply], turn: int) -> list[_Supply]:
    start = turn % len(row) if row else 0
    return row[start:] + row[:start]


def _pieces(source: Placement, demands: list[_Demand]) -> Iterator[Piece]:
    for group in source.layout.replica_groups():
        senders = tuple(source.ranks[position] for position in group)
        held = source.layout.region(group[0])
        origin = _origin(held)
        crossing: list[tuple[_Demand, Region]] = []
        for demand in demands:
            box = overlap(held, demand.region)
            if box is None:
                continue
            if demand.rank in senders:
                yield _piece(demand.rank, origin, demand, box)
            else:
                crossing.append((demand, box))
        for sender, demand, box in _spread(senders, crossing):
            yield _piece(sender, origin, demand, box)


def _spread(
    senders: tuple[RankId, ...], crossing: list[tuple[_Demand, Region]]
) -> Iterator[tuple[RankId, _Demand, Region]]:
    """Lay the boxes end to end and give each sender an equal stretch, cut between whole rows of a box."""
    total = sum(prod(_shape(box)) for _, box in crossing)
    before = 0
    for demand, box in crossing:
        numel = prod(_shape(box))
        for sender, part in zip(senders, _stretches(box, before, total, len(senders)), strict=True):
            if part is not None:
                yield sender, demand, part
        before += numel


def _stretches(box: Region, before: int, total: int, count: int) -> Iterator[Region | None]:
    """The part of a box, which lies `before` elements into `total`, in each of `count` equal stretches of the total."""
    if not box:
        turn = before * count // total
        yield from (box if index == turn else None for index in range(count))
        return
    dim = _cut_dim(_shape(box), count)
    first, last = box[dim]
    row = prod(_shape(box)) // (last - first)
    start = first
    for index in range(1, count + 1):
        ahead = total * index - before * count  # elements of the box up to this stretch's end, times count
        rows = (2 * ahead + count * row) // (2 * count * row)
        stop = min(last, max(start, first + rows))
        yield _with(box, dim, (start, stop)) if stop > start else None
        start = stop


def _parts(shard: Region, count: int) -> tuple[Region, ...] | None:
    """`count` even parts of a shard, None when no dimension is large enough."""
    if not shard:
        return None
    dim = _cut_dim(_shape(shard), count)
    first, last = shard[dim]
    if last - first < count:
        return None
    return tuple(_with(shard, dim, (first + a, first + b)) for a, b in even_bounds(last - first, count))


def _cut_dim(shape: Shape, count: int) -> int:
    """The first dimension that `count` divides, else the longest."""
    return next((dim for dim, extent in enumerate(shape) if extent % count == 0), shape.index(max(shape)))


def _piece(sender: RankId, source_origin: Shape, demand: _Demand, box: Region) -> Piece:
    return Piece(sender, demand.rank, _local(box, source_origin), _local(box, demand.origin))


def _check_same_tensor(source: Placement, target: Placement) -> None:
    if source.layout.shape != target.layout.shape:
        rule = f"source and target are layouts of one tensor, but the source's shape is {source.layout.shape}"
        raise LayoutError("shape", target.layout.shape, rule, "build both layouts from the same model dimensions")


def _covers(held: Region | None, wanted: Region) -> bool:
    return held is not None and overlap(held, wanted) == wanted


def _shape(box: Region) -> Shape:
    return tuple(stop - start for start, stop in box)


def _origin(box: Region) -> Shape:
    return tuple(start for start, _ in box)


def _local(box: Region, origin: Shape) -> Region:
    return tuple((start - zero, stop - zero) for (start, stop), zero in zip(box, origin, strict=True))


def _with(box: Region, dim: int, bounds: Bounds) -> Region:
    return (*box[:dim], bounds, *box[dim + 1 :])
