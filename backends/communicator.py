"""`Communicator`: some chips of one pool that talk over their family's own collectives. `strict.py` has the law that
all of them obey."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from backends.watch import Watch


class Work(Protocol):
    """An operation that was issued. Its tensors must neither be let go of nor be written to before it is over."""

    def wait(self) -> Any:
        """Work given to the chip from here on sees the operation's result."""

    def is_completed(self) -> bool:
        """Whether it is over; may say no for as long as nobody has waited."""


class Communicator(ABC):
    """`members` are numbers of the pool's world, in ascending order; every argument that names one is such a number.

    All members must issue the same collectives in the same order, and the two ends of a pair the same messages. The
    first operation with anybody blocks its caller until the other ends have come to theirs: `meet` and `greet` make
    that happen where an epoch is built. `name` says to a person what is said here.
    """

    def __init__(self, name: str, me: int, members: Sequence[int], device: torch.device, watch: Watch) -> None:
        self.name, self.me, self.members, self.device, self.watch = name, me, tuple(members), device, watch

    def meet(self) -> None:
        """First contact of all members."""
        with self.watch.waiting(self.name, self.me, self.members):
            self.all_reduce(torch.zeros(1, device=self.device))

    def greet(self, peer: int, sends: bool) -> None:
        """First contact of a pair: one message of one number."""
        with self.watch.waiting(self.name, self.me, [peer]):
            one = torch.zeros(1, device=self.device)
            (self.send(one, peer) if sends else self.receive(one, peer)).wait()

    def all_reduce(self, x: Tensor, largest: bool = False) -> None:
        """The sum over the members in place of `x`, or the largest; all get the same bits."""
        self.start_all_reduce(x, largest).wait()

    @abstractmethod
    def start_all_reduce(self, x: Tensor, largest: bool = False) -> Work:
        """The same, beside what is computed until it is waited for. All members wait in the order of issue."""

    @abstractmethod
    def start_all_gather(self, whole: Tensor, part: Tensor) -> Work:
        """Equal parts of all members, end to end in their order, in `whole`; `part` is this one's. Both contiguous."""

    @abstractmethod
    def start_reduce_scatter(self, part: Tensor, whole: Tensor) -> Work:
        """The inverse: to each member its own part of the sum of all members' `whole`. Both contiguous."""

    @abstractmethod
    def all_gather(self, parts: Sequence[Tensor]) -> None:
        """One part of each member, in their order, of any sizes. This member's own is there, the others are filled."""

    @abstractmethod
    def all_to_all(self, inward: Tensor, in_sizes: Sequence[int], outward: Tensor, out_sizes: Sequence[int]) -> Work:
        """All to all. `outward` holds what goes to each member, end to end in their order, `inward` what comes."""

    @abstractmethod
    def send(self, x: Tensor, target: int) -> Work: ...

    @abstractmethod
    def receive(self, x: Tensor, source: int) -> Work: ...


# By the names that torch 2.13 has for them, and by those of the releases before it.
_ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class VendorCommunicator(Communicator):
    """Over the vendor's library, as torch drives it.

    Messages are issued one by one, not with `batch_isend_irecv`, and the world is made without `device_id`: in either
    case torch would send them over the group's one communicator, in one row for all pairs. Issued alone, each pair has
    a communicator and a stream of its own, and waits for nobody else.
    """

    def __init__(
        self, name: str, me: int, members: Sequence[int], device: torch.device, watch: Watch, group: Any
    ) -> None:
        super().__init__(name, me, members, device, watch)
        self._group = group

    def start_all_reduce(self, x: Tensor, largest: bool = False) -> Work:
        operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        return _started(dist.all_reduce(x, operation, group=self._group, async_op=True))

    def start_all_gather(self, whole: Tensor, part: Tensor) -> Work:
        return _started(_ALL_GATHER(whole.view(-1), part.view(-1), group=self._group, async_op=True))

    def start_reduce_scatter(self, part: Tensor, whole: Tensor) -> Work:
        return _started(_REDUCE_SCATTER(part.view(-1), whole.view(-1), group=self._group, async_op=True))

    def all_gather(self, parts: Sequence[Tensor]) -> None:
        if len({part.shape for part in parts}) == 1 and all(part.is_contiguous() for part in parts):
            dist.all_gather(list(parts), parts[self.members.index(self.me)].clone(), group=self._group)
            return
        for part, member in zip(parts, self.members, strict=True):
            buffer = part.contiguous()
            dist.broadcast(buffer, member, group=self._group)
            part.copy_(buffer)

    def all_to_all(self, inward: Tensor, in_sizes: Sequence[int], outward: Tensor, out_sizes: Sequence[int]) -> Work:
        sizes = list(in_sizes), list(out_sizes)
        return _started(dist.all_to_all_single(inward, outward, *sizes, group=self._group, async_op=True))

    def send(self, x: Tensor, target: int) -> Work:
        return _started(dist.isend(x, target, group=self._group))

    def receive(self, x: Tensor, source: int) -> Work:
        return _started(dist.irecv(x, source, group=self._group))


def _started(work: Work | None) -> Work:
    assert work is not None, "this process is no member of the group"
    return work
