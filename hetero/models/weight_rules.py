"""The map of names as a family tells it: tables of rules, from names within a unit to names of a directory.

A table's keys are names within a unit, or several of them that lie in one foreign tensor; what the model has not is
passed over, and what the table has not is an error. Foreign names have `{layer}` and, of tensors that lie there one by
one along a logical one's first dimension, `{item}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.layout.layout import Shape, whole
from hetero.models.architecture import Architecture
from hetero.models.weight_map import Block, WeightMap


@dataclass(frozen=True)
class Rule:
    """Logical tensors of a unit end to end along `axis`, in `groups` that each have an equal part of every one of them.

    `transposed` is the foreign tensor's last two dimensions the other way round. A foreign name with `{item}` is of one
    index of the first dimension, which it lacks.
    """

    foreign: str
    axis: int = 0
    groups: int = 1
    transposed: bool = False

    def blocks(self, layer: int, tensors: Sequence[tuple[str, Shape]]) -> Iterator[Block]:
        period = sum(shape[self.axis] // self.groups for _, shape in tensors)
        before = 0
        for name, shape in tensors:
            part = shape[self.axis] // self.groups
            if part * self.groups != shape[self.axis]:
                raise ValueError(f"{name}: {self.groups} groups do not divide {shape[self.axis]}")
            for here, there in _along(shape[self.axis], part, before, period):
                yield from self._of_each(layer, name, shape, here, there)
            before += part

    def _of_each(self, layer: int, name: str, shape: Shape, here: tuple[int, int], there: slice) -> Iterator[Block]:
        box = [*whole(shape)]
        box[self.axis] = here
        kept = list(range(len(shape)))
        if stacked := "{item}" in self.foreign:
            kept = kept[1:]
        if self.transposed and len(kept) > 1:
            kept[-2:] = reversed(kept[-2:])
        slices = tuple(there if dim == self.axis else slice(0, shape[dim], 1) for dim in kept)
        for item in range(shape[0]) if stacked else (0,):
            if stacked:
                box[0] = (item, item + 1)
            yield Block(name, tuple(box), self.foreign.format(layer=layer, item=item), slices, tuple(kept))


def _along(extent: int, part: int, before: int, period: int) -> Iterator[tuple[tuple[int, int], slice]]:
    """Where the parts of one tensor lie, in it and among all."""
    if part == period:
        yield (0, extent), slice(0, extent, 1)
    elif part == 1:
        yield (0, extent), slice(before, before + (extent - 1) * period + 1, period)
    else:
        for number in range(extent // part):
            first = number * period + before
            yield (number * part, (number + 1) * part), slice(first, first + part, 1)


Table = Mapping[str | tuple[str, ...], str | Rule]


@dataclass(frozen=True)
class Names:
    """One table for the embedding's unit, one for each unit of a layer in their order, and one for the head's."""

    embedding: Table
    layer: tuple[Table, ...]
    head: Table
    prefix: str = "model."

    def map(self, model: Architecture) -> WeightMap:
        """Of all tensors of the model. ValueError where a tensor has no rule."""
        logical: dict[str, Shape] = {}
        blocks: list[Block] = []
        ties: dict[str, str] = {}
        for number, unit in enumerate(model.units):
            tensors = {name: (spec.name, spec.layout.shape) for name, spec in model.tensors(number, 1).items()}
            own = {name: found for name, found in tensors.items() if name not in unit.ties}
            logical |= dict(own.values())
            table, layer = self._table(number, len(model.units))
            blocks += _blocks(table, layer, own)
            tied = _blocks(table, layer, {name: tensors[name] for name in unit.ties})
            owners = {block.logical: block.foreign for block in blocks}
            ties |= {block.foreign: owners[block.logical] for block in tied}
        return WeightMap(logical, blocks, ties, self.prefix)

    def _table(self, number: int, units: int) -> tuple[Table, int]:
        if number == 0:
            return self.embedding, 0
        if number == units - 1:
            return self.head, 0
        layer, place = divmod(number - 1, len(self.layer))
        return self.layer[place], layer


def _blocks(table: Table, layer: int, tensors: Mapping[str, tuple[str, Shape]]) -> list[Block]:
    found: list[Block] = []
    left = set(tensors)
    for key, told in table.items():
        names = [name for name in ((key,) if isinstance(key, str) else key) if name in tensors]
        if names:
            rule = Rule(told) if isinstance(told, str) else told
            found += rule.blocks(layer, [tensors[name] for name in names])
            left -= set(names)
    if left:
        raise ValueError(f"no rule says where a directory has {', '.join(sorted(left))}")
    return found
