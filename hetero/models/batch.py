"""The samples that one action works on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from backends.attention_mask import AttentionMask, plain_mask
from hetero.layers.cross_entropy import IGNORED

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens_BT and labels_BT, int64, on the rank's device. A label of IGNORED is not counted.

    positions_BT, where they are not 0, 1, ..., T-1, are each less than T. documents_BT number each position's document
    where a sample has several, which lie side by side; attention ends at their borders. They stay on the host.
    """

    tokens_BT: torch.Tensor
    labels_BT: torch.Tensor
    positions_BT: torch.Tensor | None = None
    documents_BT: torch.Tensor | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        positions = None if self.positions_BT is None else self.positions_BT.to(device)
        return Batch(self.tokens_BT.to(device), self.labels_BT.to(device), positions, self.documents_BT)

    def part(self, number: int, count: int) -> Batch:
        """Of parts of `count` samples each, one; it makes anew what is made once."""
        rows = slice(number * count, (number + 1) * count)
        positions, documents = (None if x is None else x[rows] for x in (self.positions_BT, self.documents_BT))
        return Batch(self.tokens_BT[rows], self.labels_BT[rows], positions, documents)

    @property
    def counted(self) -> int:
        """Tokens whose loss is counted: best asked where the labels are on the host."""
        return int((self.labels_BT != IGNORED).sum())

    def mask(self, length: int, window: int | None = None) -> AttentionMask | None:
        """What a position of `length` reads, of no more than the last `window`; None where that is all before it. One
        for all layers that ask."""
        window = None if window is None or window >= length else window
        if self.documents_BT is None:
            return None if window is None else plain_mask(window)
        return self.once(("mask", window), lambda: AttentionMask(self.documents_BT, window))

    @property
    def filled_BT(self) -> torch.Tensor | None:
        """Which positions are no padding, on the labels' device; None where samples have no documents. Of each of these
        something is counted, so a sample's last one of which nothing is, is padding."""
        if self.documents_BT is None:
            return None
        last_BT = (self.documents_BT == self.documents_BT[:, -1:]).to(self.labels_BT.device)
        return ~last_BT | ((self.labels_BT != IGNORED) & last_BT).any(-1, keepdim=True)

    @property
    def lengths_BT(self) -> torch.Tensor | None:
        """Of each position's document, as many positions as it has; on the host."""
        if self.documents_BT is None:
            return None
        told = (row_T.unique_consecutive(return_inverse=True, return_counts=True) for row_T in self.documents_BT)
        return torch.stack([counts[inverse_T] for _, inverse_T, counts in told])

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What all layers need alike: made by the first that asks, kept as long as the batch."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made
