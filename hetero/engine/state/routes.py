"""What of the state lies where under a plan, and so what must go where when another plan takes over. No tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from bridge.layout.layout import Region
from bridge.layout.reshard import Box, Piece, relocate
from bridge.precision import ITEM_BYTES
from bridge.rank import RankId
from hetero.engine.state.ownership import Holding

PARAMETER = "parameter"
"""A float32 value or master, which are the same; moments have torch's own names."""
VALUE = "value"
"""What a pool computes with that is narrower than float32."""
WIDE = "float32"


class Key(NamedTuple):
    """One tensor of a rank's state."""

    name: str
    kind: str


@dataclass(frozen=True)
class Shard:
    """What a rank has under a key. As a whole it is its own, whatever else the rank has."""

    region: Region
    dtype: str

    @property
    def nbytes(self) -> int:
        return prod(stop - start for start, stop in self.region) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Side:
    """The state as a plan lays it out: its tensors, each pool's precision, and the kinds of moments that there are."""

    tensors: Sequence[Holding]
    precisions: Mapping[str, str]
    moments: tuple[str, ...]

    def shards(self, me: RankId) -> dict[Key, Shard]:
        """All that a rank holds."""
        found = {}
        for holding in self.tensors:
            for kind, dtype, parts in self.kinds(holding):
                for part in parts:
                    if part.rank == me:
                        found[Key(holding.name, kind)] = Shard(part.region, dtype)
        return found

    def kinds(self, holding: Holding) -> Iterator[tuple[str, str, tuple[Box, ...]]]:
        """Who holds what of a tensor: (kind, dtype, parts)."""
        yield PARAMETER, WIDE, self.wide(holding)
        for kind in self.moments if holding.trains else ():
            yield kind, WIDE, holding.owners.boxes
        for dtype in self.narrow:
            yield VALUE, dtype, self.values(holding, dtype)

    @property
    def narrow(self) -> list[str]:
        return sorted(set(self.precisions.values()) - {WIDE})

    def wide(self, holding: Holding) -> tuple[Box, ...]:
        """Owners' masters, unless it is frozen, and the values of pools that compute in float32."""
        masters = holding.owners.boxes if holding.trains else ()
        return tuple(dict.fromkeys([*masters, *self.values(holding, WIDE)]))

    def nearest(self, holding: Holding, dtype: str) -> tuple[Box, ...]:
        """Who has it as `dtype`, else in float32, else, if it is frozen, its owner."""
        exact = self.wide(holding) if dtype == WIDE else self.values(holding, dtype)
        return exact or self.wide(holding) or holding.owners.boxes

    def values(self, holding: Holding, dtype: str) -> tuple[Box, ...]:
        holders = (holder for holder in holding.holders if self.precisions[holder.pool] == dtype)
        return tuple(part for holder in holders for part in holder.placement.boxes)


class Transfer(NamedTuple):
    """A piece of a rank's tensor that goes to another rank's, as `dtype`."""

    key: Key
    dtype: str
    piece: Piece

    @property
    def nbytes(self) -> int:
        return self.piece.numel * ITEM_BYTES[self.dtype]


def rounds(before: Side, after: Side) -> tuple[list[Transfer], list[Transfer]]:
    """How the state gets from one plan's layout to another's.

    Float32 is the truth. Of what a pool computes with in less, owners make their part from their masters when the first
    round is over; others get theirs from whoever has it in that precision, and if nobody does, from float32, rounded by
    the sender. The second round begins when the first is over.
    """
    known = {holding.name: holding for holding in before.tensors}
    found: tuple[list[Transfer], list[Transfer]] = ([], [])
    for holding in after.tensors:
        for key, dtype, held, wanted, made in _moves(before, known[holding.name], after, holding):
            for row, pieces in zip(found, relocate(held, wanted, made, holding.unit), strict=True):
                row.extend(Transfer(key, dtype, piece) for piece in pieces)
    return found


_Boxes = tuple[Box, ...]


def _moves(before: Side, old: Holding, after: Side, new: Holding) -> Iterator[tuple[Key, str, _Boxes, _Boxes, _Boxes]]:
    """(key, dtype, who holds it, who wants it, who makes it) for each kind of state of a tensor."""
    yield Key(new.name, PARAMETER), WIDE, before.nearest(old, WIDE), after.wide(new), ()
    for kind in after.moments if new.trains else ():
        yield Key(new.name, kind), WIDE, old.owners.boxes, new.owners.boxes, ()
    for dtype in after.narrow:
        wanted = after.values(new, dtype)
        made = tuple(part for part in wanted if new.trains and part.rank in new.owners.ranks)
        others = tuple(part for part in wanted if part not in made)
        yield Key(new.name, VALUE), dtype, before.nearest(old, dtype), others, made


def crossing_bytes(rounds_: Iterable[Sequence[Transfer]], sender: RankId | None = None) -> int:
    """What leaves a rank, or all of them."""
    return sum(
        one.nbytes for row in rounds_ for one in row if not one.piece.local and sender in (None, one.piece.source)
    )


def most_pairs(rounds_: Iterable[Sequence[Transfer]]) -> int:
    """Of the rank that has most to do with others, in its round with most of them."""
    return max((count for row in rounds_ for count in _pairs(row).values()), default=0)


def _pairs(row: Sequence[Transfer]) -> Counter[RankId]:
    pairs = {(one.piece.source, one.piece.target, one.dtype) for one in row if not one.piece.local}
    return Counter(rank for pair in pairs for rank in pair[:2])


def peak_bytes(before: Side, after: Side, me: RankId, first: Sequence[Transfer] = (), most_bytes: int = 0) -> int:
    """What a rank's tensors take while state moves: all that it had, beside it what is new, and one message, of
    `most_bytes` at most, that is rounded before it leaves."""
    had, will = before.shards(me), after.shards(me)
    fresh = sum(shard.nbytes for key, shard in will.items() if had.get(key) != shard)
    rounded: Counter[RankId] = Counter()
    for one in first:
        if one.piece.source == me and not one.piece.local and (one.key not in had or had[one.key].dtype != one.dtype):
            rounded[one.piece.target] += one.nbytes
    message = min(most_bytes, max(rounded.values(), default=0))
    return sum(shard.nbytes for shard in had.values()) + fresh + message
