"""How the ranks of a group hold a logical tensor: each a box of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from typing import Literal

from bridge.errors import BridgeError

Bounds = tuple[int, int]
"""A half-open range of indices."""
Region = tuple[Bounds, ...]
"""A box of a tensor: one range per dimension."""
Shape = tuple[int, ...]


class LayoutError(BridgeError):
    """A tensor cannot be laid out as asked."""


@dataclass(frozen=True)
class TensorLayout:
    """A tensor of logical `shape` over the positions of a group of ranks.

    `regions[position]` is the box that a position holds, None where it holds nothing. Positions of equal regions are
    replicas of one part; the distinct parts, of any sizes, tile the tensor: none is padded, and none overlaps another.
    `gradients` says of replicas whether each computes the whole gradient ("equal") or a share of it that must be added
    up ("summed"): then every part has as many. Raises LayoutError for anything else.
    """

    shape: Shape
    regions: tuple[Region | None, ...]
    gradients: Literal["equal", "summed"] = "equal"

    def __post_init__(self) -> None:
        if self.gradients not in ("equal", "summed"):
            raise LayoutError("gradients", self.gradients, "replicas are equal or summed", "name one of the two")
        if any(extent < 1 for extent in self.shape):
            raise LayoutError("shape", self.shape, "every dimension has at least one element", "give positive sizes")
        if (fault := _fault(self.shape, frozenset(part for part in self.regions if part is not None))) is not None:
            raise LayoutError("regions", self.regions, *fault)
        if self.gradients == "summed" and len({len(group) for group in self.replica_groups()}) > 1:
            rule = "replicas that share a gradient are as many of one part as of any other"
            raise LayoutError("regions", self.regions, rule, "give each part to as many positions")

    @classmethod
    def replicated(cls, shape: Shape, size: int, gradients: Literal["equal", "summed"] = "equal") -> TensorLayout:
        """The whole tensor on each of `size` positions."""
        return cls(tuple(shape), (whole(shape),) * size, gradients)

    @classmethod
    def cut(
        cls, shape: Shape, dim: int, bounds: Sequence[Bounds], gradients: Literal["equal", "summed"] = "equal"
    ) -> TensorLayout:
        """Each position holds all of the tensor that lies within its bounds in `dim`."""
        _extent(shape, dim)
        box = whole(shape)
        return cls(tuple(shape), tuple((*box[:dim], part, *box[dim + 1 :]) for part in bounds), gradients)

    @classmethod
    def split(cls, shape: Shape, dim: int, size: int) -> TensorLayout:
        """Cut `dim` into `size` parts as even as can be; the first ones are one larger."""
        extent = _extent(shape, dim)
        if not 1 <= size <= extent:
            rule = f"dimension {dim} has {extent} elements, too few for {size} non-empty parts"
            raise LayoutError("tp", size, rule, f"use a tp from 1 to {extent}")
        return cls.cut(shape, dim, even_bounds(extent, size))

    @classmethod
    def split_heads(cls, shape: Shape, dim: int, heads: int, size: int, head_dim: int) -> TensorLayout:
        """Cut `dim`, which is `heads` blocks of `head_dim`, between heads.

        With fewer heads than positions each head has `size / heads` replicas, whose gradients are summed, since each
        serves other query heads. Raises LayoutError when neither of heads and size divides the other.
        """
        extent = _extent(shape, dim)
        if heads * head_dim != extent:
            rule = f"{heads} heads of {head_dim} make {heads * head_dim}, but dimension {dim} has {extent}"
            raise LayoutError("heads", heads, rule, "correct heads or head_dim")
        if heads % size and size % heads:
            divisors = [n for n in range(1, heads + 1) if heads % n == 0]
            raise LayoutError(
                "tp",
                size,
                f"tp must divide the {heads} heads, or be a multiple of them",
                f"use a tp of {', '.join(map(str, divisors))}, or a multiple of {heads}",
            )
        if heads >= size:
            return cls.split(shape, dim, size)
        first = [position * heads // size * head_dim for position in range(size)]
        return cls.cut(shape, dim, [(start, start + head_dim) for start in first], "summed")

    @property
    def size(self) -> int:
        """How many positions the group has."""
        return len(self.regions)

    def region(self, position: int) -> Region:
        """The box of the logical tensor that a position holds. Raises LayoutError where it holds nothing."""
        if (region := self.regions[position]) is None:
            rule = f"it holds nothing of a tensor of shape {self.shape}"
            raise LayoutError("position", position, rule, "ask a position that holds a part")
        return region

    def local_shape(self, position: int) -> Shape:
        """The shape of the tensor that a position holds. Raises LayoutError where it holds nothing."""
        return tuple(stop - start for start, stop in self.region(position))

    def replica_groups(self) -> tuple[tuple[int, ...], ...]:
        """The positions that hold the same part, part by part in the tensor's order."""
        groups: dict[Region, list[int]] = {}
        for position, region in enumerate(self.regions):
            if region is not None:
                groups.setdefault(region, []).append(position)
        return tuple(tuple(groups[region]) for region in sorted(groups))


def whole(shape: Shape) -> Region:
    """The box that is all of a tensor."""
    return tuple((0, extent) for extent in shape)


def overlap(one: Region, other: Region) -> Region | None:
    """The box that two boxes of equal rank share, None if they share nothing."""
    box = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return box if all(start < stop for start, stop in box) else None


def even_bounds(extent: int, size: int) -> tuple[Bounds, ...]:
    """`size` ranges that tile 0..extent as evenly as can be, the first ones one larger."""
    small, larger = divmod(extent, size)
    starts = [i * small + min(i, larger) for i in range(size + 1)]
    return tuple(pairwise(starts))


def _extent(shape: Shape, dim: int) -> int:
    if not 0 <= dim < len(shape):
        raise LayoutError("dim", dim, f"the tensor has {len(shape)} dimensions, counted from 0", "name one of them")
    return shape[dim]


@lru_cache(maxsize=4096)  # the tensors of a model repeat a few layouts layer after layer
def _fault(shape: Shape, parts: frozenset[Region]) -> tuple[str, str] | None:
    """Why distinct parts do not tile a tensor, and what to do about it; None where they do."""
    ordered = sorted(parts)
    for part in ordered:
        if len(part) != len(shape):
            return f"{part} has {len(part)} ranges, the tensor {len(shape)} dimensions", "give one range per dimension"
        if not all(0 <= start < stop <= extent for (start, stop), extent in zip(part, shape, strict=True)):
            return f"{part} does not lie within {shape}, or is empty", "give non-empty (start, stop) inside the tensor"
    for one, other in combinations(ordered, 2):
        if overlap(one, other) is not None:
            return f"{one} and {other} overlap and are not equal", "give parts that are equal or apart"
    held = sum(prod(stop - start for start, stop in part) for part in parts)
    if held < prod(shape):
        return f"{prod(shape) - held} of {prod(shape)} elements are held by nobody", "give each to a position"
    return None
