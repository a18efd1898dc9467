"""Ranges of units between the places where a model can be cut: models repeat their layers, so few of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.workload import Workload

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


class AlikeRanges(NamedTuple):
    """A range of units [`begin`, `end`) of each that there are; `which` of them a range is, by its last and first cut:
    as many as there are for none."""

    begin: Ints
    end: Ints
    which: Ints


@lru_cache(maxsize=16)
def alike_ranges(kinds: Sequence[int], cuts: Sequence[int]) -> AlikeRanges:
    """Of a model whose units are of these kinds: ranges are alike that have units of the same kinds in order."""
    written, size = np.array(kinds, dtype=np.uint32).tobytes(), 4
    known: dict[bytes, int] = {}
    ends: list[tuple[int, int]] = []
    which = np.zeros((len(cuts),) * 2, dtype=np.int64)
    for i, begin in enumerate(cuts):
        for j in range(i + 1, len(cuts)):
            which[j, i] = number = known.setdefault(written[size * begin : size * cuts[j]], len(ends))
            if number == len(ends):
                ends.append((begin, cuts[j]))
    which[np.triu_indices(len(cuts))] = len(ends)
    begins, lasts = np.array(ends, dtype=np.int64).T
    return AlikeRanges(begins, lasts, which)
