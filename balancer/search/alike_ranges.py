"""Ranges of units between the places where a model can be cut: models repeat their layers, so few of them differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.workload import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class UnitKinds(NamedTuple):
    """`first` is a unit of each kind, tied ones by themselves; `of_unit` the kind of each."""

    first: tuple[int, ...]
    of_unit: tuple[int, ...]

    @staticmethod
    def of(workload: Workload) -> UnitKinds:
        again = {later: first for first, later in workload.tied}
        known, first, kinds = dict[tuple[int, int | None], int](), list[int](), list[int]()
        for u, unit in enumerate(workload.units):
            kind = known.setdefault((id(unit), again.get(u)), len(known))
            if kind == len(first):
                first.append(u)
            kinds.append(kind)
        return UnitKinds(tuple(first), tuple(kinds))


@dataclass(frozen=True, eq=False)
class AlikeRanges:
    """A range of units [`begin`, `end`) of each that there are, between `longest` cuts; and which of them lies between
    any two cuts: `table` has it by the last cut and the first one, `len(begin)` where that is no range."""

    begin: Ints
    end: Ints
    longest: Ints
    table: Ints

    def which(self, first: int, last: int) -> int:
        return int(self.table[last, first])

    def band(self, each: Floats, width: int) -> Floats:
        """What there is of each range, and behind all of them of none, as `balancer.search.cut` reads it: by the last
        cut, and by the first one from `width` before that on."""
        found: Floats = each[self._bands(width)]
        return found

    def _bands(self, width: int) -> Ints:
        if width not in self._known:
            first = np.arange(len(self.table))[:, None] - np.arange(width, 0, -1)
            self._known[width] = np.where(first < 0, len(self.begin), np.take_along_axis(self.table, first, axis=1))
        return self._known[width]

    @cached_property
    def _known(self) -> dict[int, Ints]:
        return {}


@lru_cache(maxsize=16)
def alike_ranges(kinds: tuple[int, ...], cuts: tuple[int, ...]) -> AlikeRanges:
    """Of a model whose units are of these kinds: ranges are alike that have units of the same kinds in order."""
    written, size = np.array(kinds, dtype=np.uint32).tobytes(), 4
    known: dict[bytes, int] = {}
    found: list[tuple[int, int, int]] = []
    table = np.zeros((len(cuts),) * 2, dtype=np.int64)
    for i, begin in enumerate(cuts):
        for j in range(i + 1, len(cuts)):
            table[j, i] = number = known.setdefault(written[size * begin : size * cuts[j]], len(found))
            if number == len(found):
                found.append((begin, cuts[j], j - i))
    table[np.triu_indices(len(cuts))] = len(found)
    begins, ends, longest = np.array(found, dtype=np.int64).T
    return AlikeRanges(begins, ends, longest, table)
