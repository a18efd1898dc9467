"""The ranks that hold one unit's tensors together, and what they say to each other.

Every rank of a group has the whole boundary tensor. A unit enters its split part through `copy_in` and leaves it
through `reduce_out`; between the two each rank works on its own slices. With one rank all of it is the identity and
leaves no trace in the autograd graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch

from backends.communicator import Communicator


@dataclass(frozen=True)
class TensorGroup:
    """The ranks along a stage's axis `tp`: `size` of them, of which this is number `rank`. They talk over
    `communicator` (None with one rank)."""

    size: int = 1
    rank: int = 0
    communicator: Communicator | None = None

    def copy_in(self, x: torch.Tensor) -> torch.Tensor:
        """Identity forward; backward sums the ranks' gradients."""
        return x if self.size == 1 else cast(torch.Tensor, _CopyIn.apply(x, self))

    def reduce_out(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks forward, in place: `x` must be a fresh result. Identity backward."""
        return x if self.size == 1 else cast(torch.Tensor, _ReduceOut.apply(x, self))

    def all_reduce_sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place, outside of autograd."""
        if self.communicator is not None:
            self.communicator.all_reduce(x)
        return x

    def all_reduce_max(self, x: torch.Tensor) -> torch.Tensor:
        """Largest over the ranks, in place, outside of autograd."""
        if self.communicator is not None:
            self.communicator.all_reduce(x, largest=True)
        return x


class _CopyIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Autograd may hand the same gradient to another branch: only a copy can be summed in place.
        return ctx.group.all_reduce_sum(gradients[0].clone(memory_format=torch.contiguous_format)), None


class _ReduceOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.mark_dirty(x)
        return group.all_reduce_sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
