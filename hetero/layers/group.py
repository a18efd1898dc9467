"""The ranks that hold one unit's tensors together, and what they say to each other.

A unit enters its split part through `copy_in` and leaves it through `reduce_out`; between the two each rank works on
its own slices. Outside, every rank has the whole stream or, where the stage is sequence-parallel, rows of it: the
tokens of all its sequences, end to end, are cut evenly in the order of the communicator's members. With one rank all of
it is the identity and leaves no trace in the autograd graph.

Shapes: B sequences, T positions, D hidden, S = T / ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from backends.communicator import Communicator


def _nothing() -> None: ...


@dataclass(frozen=True)
class TensorGroup:
    """The ranks along a stage's axis `tp`: `size` of them, of which this is number `rank`. They talk over
    `communicator` (None with one rank)."""

    size: int = 1
    rank: int = 0
    communicator: Communicator | None = None
    sequence_parallel: bool = False
    slices: int = 1
    """In how many a split part's last product is made, so that the sum of one hides behind the next."""
    spread: bool = False
    """Whether each rank has some experts whole, in place of a slice of each."""

    def copy_in(self, x: torch.Tensor, meanwhile: Callable[[], None] = _nothing) -> torch.Tensor:
        """Identity forward; backward sums the ranks' gradients. Rows x_BSD are gathered to (B, T, D), and get their own
        of that sum. `meanwhile` is done in backward while the ranks sum."""
        if self.size == 1:
            return x
        return cast(torch.Tensor, (_GatherIn if self.sequence_parallel else _CopyIn).apply(x, self, meanwhile))

    def reduce_out(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks forward, in place: `x` must be a fresh result. Identity backward. Where rows are wanted,
        (B, T, D) to this rank's (B, S, D) of the sum; backward gathers the ranks' gradients."""
        if self.size == 1:
            return x
        return cast(torch.Tensor, (_ScatterOut if self.sequence_parallel else _ReduceOut).apply(x, self))

    def gather_rows(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """All ranks' rows as (B, T, D), outside of autograd."""
        assert self.communicator is not None
        whole_BTD = x_BSD.new_empty(x_BSD.shape[0], x_BSD.shape[1] * self.size, x_BSD.shape[2])
        self.communicator.start_all_gather(whole_BTD, x_BSD.contiguous()).wait()
        return whole_BTD

    def scatter_sum(self, x_BTD: torch.Tensor, meanwhile: Callable[[], None] = _nothing) -> torch.Tensor:
        """This rank's rows of the sum over the ranks, (B, S, D), outside of autograd."""
        assert self.communicator is not None
        whole_BTD = x_BTD.contiguous()
        rows_BSD = x_BTD.new_empty(x_BTD.shape[0], x_BTD.shape[1] // self.size, x_BTD.shape[2])
        work = self.communicator.start_reduce_scatter(rows_BSD, whole_BTD)
        meanwhile()
        work.wait()
        return rows_BSD

    def all_reduce_sum(self, x: torch.Tensor, meanwhile: Callable[[], None] = _nothing) -> torch.Tensor:
        """Sum over the ranks, in place, outside of autograd."""
        if self.communicator is not None:
            work = self.communicator.start_all_reduce(x)
            meanwhile()
            work.wait()
        return x

    def all_reduce_max(self, x: torch.Tensor) -> torch.Tensor:
        """Largest over the ranks, in place, outside of autograd."""
        if self.communicator is not None:
            self.communicator.all_reduce(x, largest=True)
        return x


class _CopyIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup, meanwhile: Callable[[], None]) -> torch.Tensor:
        ctx.group, ctx.meanwhile = group, meanwhile
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        # Autograd may hand the same gradient to another branch: only a copy can be summed in place.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        return ctx.group.all_reduce_sum(total, ctx.meanwhile), None, None


class _ReduceOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.mark_dirty(x)
        return group.all_reduce_sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


class _GatherIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BSD: torch.Tensor, group: TensorGroup, meanwhile: Callable[[], None]) -> torch.Tensor:
        ctx.group, ctx.meanwhile = group, meanwhile
        return group.gather_rows(x_BSD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.group.scatter_sum(gradients[0], ctx.meanwhile), None, None


class _ScatterOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTD: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.group = group
        return group.scatter_sum(x_BTD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.group.gather_rows(gradients[0]), None
