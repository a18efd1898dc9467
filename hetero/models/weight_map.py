"""Between a model's logical tensors and a directory's: one map, read forwards for import and backwards for export.

It is told as rules (`hetero/models/weight_rules.py`) and held as blocks: boxes of logical tensors that are boxes of
foreign ones, which tile both sides. Importing it takes no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.layout.layout import Region, Shape, overlap

if TYPE_CHECKING:
    import torch

Slices = tuple[slice, ...]
Take = Callable[[str, Slices], "torch.Tensor"]
"""A box of a foreign tensor, by its name; start and stop are given in each dimension, and no step."""


@dataclass(frozen=True)
class Block:
    """The box `here` of a logical tensor is the box `there` of a foreign one, whose slices have steps.

    `dims` names the logical dimension of each foreign one; `here` has extent 1 in those that the foreign tensor lacks.
    """

    logical: str
    here: Region
    foreign: str
    there: Slices
    dims: tuple[int, ...]

    def place(self, box: Region) -> Slices:
        """Where the foreign tensor has a box of the logical one that lies in `here`."""
        found = []
        for dim, bounds in zip(self.dims, self.there, strict=True):
            first, last = (at - self.here[dim][0] for at in (box[dim][0], box[dim][1] - 1))
            found.append(slice(bounds.start + first * bounds.step, bounds.start + last * bounds.step + 1, bounds.step))
        return tuple(found)

    def read(self, box: Region, take: Take) -> torch.Tensor:
        """A box of the logical tensor that lies in `here`."""
        asked = tuple(slice(bounds.start, bounds.stop) for bounds in self.place(box))
        found = take(self.foreign, asked)[tuple(slice(None, None, bounds.step) for bounds in self.there)]
        found = found.permute(sorted(range(found.dim()), key=lambda at: self.dims[at]))
        for dim in self._lacking:
            found = found.unsqueeze(dim)
        return found

    def written(self, logical: torch.Tensor) -> torch.Tensor:
        """What the foreign tensor has in `there`, of the whole logical one."""
        return self.turned(logical[tuple(slice(*bounds) for bounds in self.here)])

    def turned(self, part: torch.Tensor) -> torch.Tensor:
        """A box of the logical tensor that lies in `here`, as the foreign one has it in its place."""
        found = part.reshape([extent for dim, extent in enumerate(part.shape) if dim not in self._lacking])
        order = sorted(self.dims)
        return found.permute([order.index(dim) for dim in self.dims])

    @property
    def _lacking(self) -> tuple[int, ...]:
        return tuple(dim for dim in range(len(self.here)) if dim not in self.dims)


class WeightMap:
    """Every element of `logical` tensors (by shapes) is one of a foreign tensor, and the other way round.

    foreign  every tensor of a directory that is written, with its shape
    ties     foreign names that a directory may leave out, since each is another foreign one, and may have, equal to it
    prefix   begins foreign names, and is left out in directories that were saved without a head
    Raises ValueError where the blocks do not tile both sides, which is a family's mistake.
    """

    def __init__(
        self,
        logical: Mapping[str, Shape],
        blocks: Iterable[Block],
        ties: Mapping[str, str] | None = None,
        prefix: str = "model.",
    ) -> None:
        self.ties, self.prefix = dict(ties or {}), prefix
        self._logical = dict(logical)
        self._blocks: dict[str, list[Block]] = {name: [] for name in logical}
        self._blocks_of: dict[str, list[Block]] = {}
        for block in blocks:
            self._blocks[block.logical].append(block)
            self._blocks_of.setdefault(block.foreign, []).append(block)
        self.foreign: Mapping[str, Shape] = {name: _shape(blocks) for name, blocks in self._blocks_of.items()}
        for name, shape in (*self._logical.items(), *self.foreign.items()):
            held = sum(_size(block.here) for block in (self._blocks.get(name) or self._blocks_of.get(name, [])))
            if held != math.prod(shape):
                raise ValueError(f"{name}: blocks have {held} of its {math.prod(shape)} elements")

    def shape(self, logical: str) -> Shape:
        return self._logical[logical]

    def foreign_of(self, logical: str) -> tuple[str, ...]:
        """The foreign tensors that have elements of a logical one."""
        return tuple(dict.fromkeys(block.foreign for block in self._blocks[logical]))

    def logical_of(self, foreign: str) -> tuple[str, ...]:
        """The logical tensors that have elements of a foreign one, which may be a tie."""
        return tuple(dict.fromkeys(block.logical for block in self._blocks_of[self.ties.get(foreign, foreign)]))

    def read(self, logical: str, region: Region, get: Take) -> torch.Tensor:
        """The box of a logical tensor; of foreign ones, only what is in it is asked for. It may be a view of that."""
        parts = [
            (common, block)
            for block in self._blocks[logical]
            if (common := overlap(region, block.here)) is not None
        ]  # fmt: skip
        if len(parts) == 1:
            return parts[0][1].read(region, get)
        whole = None
        for common, block in parts:
            part = block.read(common, get)
            whole = _room(whole, part, [stop - start for start, stop in region])
            within = zip(common, region, strict=True)
            whole[tuple(slice(start - begin, stop - begin) for (start, stop), (begin, _) in within)] = part
        assert whole is not None
        return whole

    def placed(self, logical: str, region: Region, part: torch.Tensor) -> Iterator[tuple[str, Slices, torch.Tensor]]:
        """The box of a logical tensor as foreign ones have it: each one's name, and what is where in it, as a view."""
        for block in self._blocks[logical]:
            if (common := overlap(region, block.here)) is not None:
                within = zip(common, region, strict=True)
                inside = tuple(slice(start - begin, stop - begin) for (start, stop), (begin, _) in within)
                yield block.foreign, block.place(common), block.turned(part[inside])

    def write(self, foreign: str, get: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """A whole foreign tensor, contiguous, of whole logical ones, each of which is asked for once. As what `read`
        gives, it is of a type that holds exactly what those of all have."""
        blocks = self._blocks_of[foreign]
        whole = None
        for logical in self.logical_of(foreign):
            source = get(logical)
            whole = _room(whole, source, self.foreign[foreign])
            for block in blocks:
                if block.logical == logical:
                    whole[block.there] = block.written(source)
        assert whole is not None
        return whole


def _room(whole: torch.Tensor | None, part: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """For the part beside those before it in `whole`."""
    if whole is None:
        return part.new_empty(shape)
    return whole.to((whole.new_empty(0) + part.new_empty(0)).dtype)


def _shape(blocks: Sequence[Block]) -> Shape:
    """Of the foreign tensor that they tile."""
    ends = ([_last(bounds) + 1 for bounds in block.there] for block in blocks)
    return tuple(max(extents) for extents in zip(*ends, strict=True))


def _last(bounds: slice) -> int:
    return int(range(bounds.start, bounds.stop, bounds.step)[-1])


def _size(box: Region) -> int:
    return math.prod(stop - start for start, stop in box)
