"""The ranks that hold one unit's tensors together, and what they say to each other.

Every rank of a group has the whole boundary tensor. A unit enters its split part through `copy_in` and leaves it
through `reduce_out`; between the two each rank works on its own slices. With one rank all of it is the identity and
leaves no trace in the autograd graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class TensorGroup:
    """`size` ranks of one pool, of which this is number `rank`; they talk over `process_group` (None with one rank)."""

    size: int = 1
    rank: int = 0
    process_group: dist.ProcessGroup | None = None

    def copy_in(self, x: torch.Tensor) -> torch.Tensor:
        """Identity forward; backward sums the ranks' gradients."""
        return x if self.size == 1 else cast(torch.Tensor, _CopyIn.apply(x, self))

    def reduce_out(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks forward, in place: `x` must be a fresh result. Identity backward."""
        return x if self.size == 1 else cast(torch.Tensor, _ReduceOut.apply(x, self))

    def all_reduce_sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place, outside of autograd."""
        return self._all_reduce(x, dist.ReduceOp.SUM)

    def all_reduce_max(self, x: torch.Tensor) -> torch.Tensor:
        """Largest over the ranks, in place, outside of autograd."""
        return self._all_reduce(x, dist.ReduceOp.MAX)

    def _all_reduce(self, x: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.size > 2 and self.size & (self.size - 1) == 0 and x.device.type == "cpu":
            self._exchange(x, torch.add if operation is dist.ReduceOp.SUM else torch.maximum)
        elif self.size > 1:
            dist.all_reduce(x, operation, group=self.process_group)
        return x

    def _exchange(self, x: torch.Tensor, combine: Any) -> None:
        """All-reduce by recursive doubling: log2(size) exchanges with one peer, so all ranks combine in the same order.

        On two CPU cores four ranks take half as long as with the library's ring, which wakes each of them 2 (size - 1)
        times (Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005).
        """
        group = self.process_group
        assert group is not None
        me, theirs, distance = dist.get_rank(group), torch.empty_like(x), 1
        while distance < self.size:
            peer = dist.get_global_rank(group, me ^ distance)
            sent = dist.isend(x, peer, group=group)
            dist.recv(theirs, peer, group=group)
            sent.wait()  # type: ignore[union-attr]
            combine(x, theirs, out=x)
            distance *= 2


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
