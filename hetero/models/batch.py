"""The samples that one action works on."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """tokens_BT and labels_BT (int64, on the rank's device); positions_T None means 0, 1, ..., T-1."""

    tokens_BT: torch.Tensor
    labels_BT: torch.Tensor
    positions_T: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        positions = None if self.positions_T is None else self.positions_T.to(device)
        return Batch(self.tokens_BT.to(device), self.labels_BT.to(device), positions)
