"""Which tokens go to which of several weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import torch


class WeightRows(NamedTuple):
    """Of one weight: its number in the stack, where its rows lie among all, and the tokens that they are of."""

    number: int
    rows: slice
    tokens: torch.Tensor


class Dispatch(NamedTuple):
    """M rows, those of one weight of a stack after those of the one before: `token_M` are the tokens that they are of,
    a token at most once for each weight. `weight_M` is what a row counts where they are added up, and `counts` says how
    many each weight has."""

    token_M: torch.Tensor
    weight_M: torch.Tensor
    counts: tuple[int, ...]

    def by_weight(self) -> Iterator[WeightRows]:
        """Of those weights that have any."""
        for number, (end, count) in enumerate(zip(accumulate(self.counts), self.counts, strict=True)):
            if count:
                rows = slice(end - count, end)
                yield WeightRows(number, rows, self.token_M[rows])
