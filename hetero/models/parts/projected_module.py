"""A part that ends in a product."""

from __future__ import annotations

import torch
from torch import nn

from hetero.models.batch import Batch


class ProjectedModule(nn.Module):
    """x_BTD -> `outer(inner(x_BTD, batch))`. A backward needs what `inner` makes, and nothing that `outer` makes."""

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """All but the last product: what that one is given."""
        raise NotImplementedError

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        """The last product."""
        raise NotImplementedError

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.outer(self.inner(x_BTD, batch))
