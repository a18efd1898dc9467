"""How the ranks of one tensor-parallel group hold a logical tensor."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
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
    """A tensor of logical `shape`, cut along `dim` over the positions of a tensor-parallel group.

    `bounds[position]` is the range of `dim` that a position holds. Positions of equal bounds are replicas of one part;
    the distinct parts tile the dimension. With `dim` None every position holds the whole tensor and each entry of
    `bounds` is (0, 1). `gradients` says of replicas whether each computes the whole gradient ("equal") or a share of it
    that must be added up ("summed").
    """

    shape: Shape
    dim: int | None
    bounds: tuple[Bounds, ...]
    gradients: Literal["equal", "summed"] = "equal"

    def __post_init__(self) -> None:
        if self.gradients not in ("equal", "summed"):
            raise LayoutError("gradients", self.gradients, "replicas are equal or summed", "name one of the two")
        if any(extent < 1 for extent in self.shape):
            raise LayoutError("shape", self.shape, "every dimension has at least one element", "give positive sizes")
        if self.dim is not None and not 0 <= self.dim < len(self.shape):
            rule = f"the tensor has {len(self.shape)} dimensions, counted from 0"
            raise LayoutError("dim", self.dim, rule, "name one of them, or None")
        extent = 1 if self.dim is None else self.shape[self.dim]
        if not _tiles(self.bounds, extent):
            rule = f"the distinct parts follow each other from 0 to {extent} without gap or overlap"
            raise LayoutError("bounds", self.bounds, rule, "give one non-empty (start, stop) per position")

    @classmethod
    def replicated(cls, shape: Shape, size: int, gradients: Literal["equal", "summed"] = "equal") -> TensorLayout:
        """The whole tensor on each of `size` positions."""
        return cls(tuple(shape), None, ((0, 1),) * size, gradients)

    @classmethod
    def split(cls, shape: Shape, dim: int, size: int) -> TensorLayout:
        """Cut `dim` into `size` parts as even as can be; the first ones are one larger."""
        extent = _extent(shape, dim)
        if not 1 <= size <= extent:
            rule = f"dimension {dim} has {extent} elements, too few for {size} non-empty parts"
            raise LayoutError("tp", size, rule, f"use a tp from 1 to {extent}")
        return cls(tuple(shape), dim, even_bounds(extent, size))

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
        return cls(tuple(shape), dim, tuple((start, start + head_dim) for start in first), "summed")

    @property
    def size(self) -> int:
        """How many positions the tensor-parallel group has."""
        return len(self.bounds)

    def region(self, position: int) -> Region:
        """The box of the logical tensor that a position holds."""
        whole = tuple((0, extent) for extent in self.shape)
        if self.dim is None:
            return whole
        return (*whole[: self.dim], self.bounds[position], *whole[self.dim + 1 :])

    def local_shape(self, position: int) -> Shape:
        """The shape of the tensor that a position holds."""
        return tuple(stop - start for start, stop in self.region(position))

    def replica_groups(self) -> tuple[tuple[int, ...], ...]:
        """The positions that hold the same part, part by part in the tensor's order."""
        groups: dict[Bounds, list[int]] = {}
        for position, part in enumerate(self.bounds):
            groups.setdefault(part, []).append(position)
        return tuple(tuple(groups[part]) for part in sorted(groups))


def even_bounds(extent: int, size: int) -> tuple[Bounds, ...]:
    """`size` ranges that tile 0..extent as evenly as can be, the first ones one larger."""
    small, larger = divmod(extent, size)
    starts = [i * small + min(i, larger) for i in range(size + 1)]
    return tuple(pairwise(starts))


def _extent(shape: Shape, dim: int) -> int:
    if not 0 <= dim < len(shape):
        raise LayoutError("dim", dim, f"the tensor has {len(shape)} dimensions, counted from 0", "name one of them")
    return shape[dim]


def _tiles(bounds: tuple[Bounds, ...], extent: int) -> bool:
    parts = sorted(set(bounds))
    if not parts or parts[0][0] != 0 or parts[-1][1] != extent:
        return False
    return all(start < stop for start, stop in parts) and all(left[1] == right[0] for left, right in pairwise(parts))
