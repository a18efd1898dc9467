"""The named axes along which the ranks of a stage lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from bridge.layout.layout import LayoutError, TensorLayout


@dataclass(frozen=True)
class Axes:
    """(name, extent) of each axis. A rank's position in its stage counts along the last axis first."""

    extents: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, **extents: int) -> Axes:
        """By name, the last one closest together: `Axes.of(tp=4)`."""
        return cls(tuple(extents.items()))

    @property
    def size(self) -> int:
        """How many ranks the stage has."""
        return prod(extent for _, extent in self.extents)

    def extent(self, axis: str) -> int:
        """Raises LayoutError where the ranks do not lie along such an axis."""
        found = dict(self.extents)
        if axis not in found:
            rule = f"the ranks of a stage lie along {', '.join(found) or 'no axis'}"
            raise LayoutError("axis", axis, rule, "name one of its axes")
        return found[axis]

    def coordinates(self, position: int) -> dict[str, int]:
        """By axis. Raises LayoutError where the stage has no such position."""
        if not 0 <= position < self.size:
            rule = f"the stage has {self.size} ranks, counted from 0"
            raise LayoutError("position", position, rule, "name one of them")
        found = {}
        for axis, extent in reversed(self.extents):
            position, found[axis] = divmod(position, extent)
        return found

    def position(self, coordinates: dict[str, int]) -> int:
        """Of the rank that has these coordinates, one for each axis."""
        position = 0
        for axis, extent in self.extents:
            position = position * extent + coordinates[axis]
        return position

    def group(self, position: int, axis: str) -> tuple[int, ...]:
        """The positions that differ from one along an axis alone, in the axis's order; it is one of them."""
        here = self.coordinates(position)
        return tuple(self.position(here | {axis: at}) for at in range(self.extent(axis)))

    def groups(self, axis: str) -> tuple[tuple[int, ...], ...]:
        """All of them along an axis: each position is in one."""
        return tuple(dict.fromkeys(self.group(position, axis) for position in range(self.size)))

    def spread(self, layout: TensorLayout, axis: str) -> TensorLayout:
        """Over all ranks of the stage, what a layout says of the ranks along one axis; along the others it is the same.

        Raises LayoutError where the axis has not as many ranks as the layout has positions."""
        if self.extent(axis) != layout.size:
            rule = f"the layout has {layout.size} positions, and so many ranks must lie along {axis}"
            raise LayoutError(axis, self.extent(axis), rule, "lay the tensor out for this stage")
        at = (self.coordinates(position)[axis] for position in range(self.size))
        return replace(layout, regions=tuple(layout.regions[coordinate] for coordinate in at))
