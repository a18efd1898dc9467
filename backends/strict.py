"""The law of collectives, and a communicator over gloo that obeys it: what the CPU and every emulated chip talk with.

gloo forgives what NCCL, HCCL and BKCL do not. So a pool that trains here obeys what all of those ask for:

1. **First contact blocks.** The first message of a pair in a group makes a communicator of the two, and their hosts
   stand still until both have come to it; the first collective of a group waits for all of its members. (torch's
   ProcessGroupNCCL::pointToPoint and ProcessGroupHCCL make communicators when they are first used, and the vendors'
   init calls are rendezvous.)
2. **No tags.** The n-th operation of a pair in a group at one end meets the n-th at the other, whatever was meant.
3. **One row.** The operations of a communicator run one after another in the order of their issue, and a message leaves
   when its receiver has come. All members issue a group's collectives in one order.
4. **No promise across communicators** but this: a chip has ROOM for some operations at once, and gives it in the order
   of issue. NVIDIA promises less ("operations on different communicators should be submitted in the same order across
   ranks"; several at once "might work provided they can fit within the GPU": NCCL's guide, on concurrent communicators;
   issues 195, 522, 783, 1766). Every framework relies on more than one: Megatron-LM has products of a tensor group,
   messages to and from two neighbours and gradients of replicas under way at once, each on its own communicator.
   CUDA gives a process 8 hardware queues unless told otherwise (CUDA_DEVICE_MAX_CONNECTIONS).
5. **Who waits long is seen**, and who waits for too long gets an error that names pair and group.

Rules 1, 2 and 5 hold at run time, here. Rules 3 and 4 are about orders that depend on the plan alone: a test replays
those of many plans (tests/unit/hetero/engine/test_issue_order.py), so that no run has to pay for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from backends.communicator import Communicator, Work
from backends.errors import NoAnswer
from backends.watch import Watch

ROOM = 8
"""Operations that a chip has room for at once."""

_MESSAGE, _REDUCE, _GATHER, _SCATTER, _EXCHANGE, _HELLO, _HELLO_ALL = range(7)
_ROWS, _TURNS = 1 << 9, 1 << 18
_PATIENCE = timedelta(minutes=10)


class StrictCommunicator(Communicator):
    """`group` may be a larger one of gloo, which many share: `row` tells its communicators apart, and a thread that
    wakes a hundred times a second is saved for each. No wait takes longer than `patience`; `watch` sees all of them."""

    def __init__(
        self,
        name: str,
        me: int,
        members: Sequence[int],
        device: torch.device,
        watch: Watch,
        group: Any,
        row: int,
        patience: timedelta = _PATIENCE,
    ) -> None:
        super().__init__(name, me, members, device, watch)
        self.patience = patience
        self._group, self._row = group, row % _ROWS
        self._others = [member for member in self.members if member != me]
        self._turns: Counter[int | None] = Counter()
        self._met: set[int | None] = set()

    def start_all_reduce(self, x: Tensor, largest: bool = False) -> Work:
        tag = self._collective(_REDUCE)
        combine = torch.maximum if largest else torch.add
        size = len(self.members)
        if size & (size - 1) == 0:
            return self._double(x, combine, tag)
        return self._combine_in_order(x, [x] * size, combine, tag)

    def start_all_gather(self, whole: Tensor, part: Tensor) -> Work:
        tag = self._collective(_GATHER)
        rooms = whole.view(-1).chunk(len(self.members))
        rooms[self.members.index(self.me)].copy_(part.view(-1))
        works = [self._irecv(room, member, tag) for member, room in self._each(rooms)]
        works += [self._isend(part, member, tag) for member in self._others]
        return _SeveralWorks(works)

    def start_reduce_scatter(self, part: Tensor, whole: Tensor) -> Work:
        tag = self._collective(_SCATTER)
        return self._combine_in_order(part.view(-1), whole.view(-1).chunk(len(self.members)), torch.add, tag)

    def all_gather(self, parts: Sequence[Tensor]) -> None:
        tag = self._collective(_GATHER)
        mine = parts[self.members.index(self.me)].contiguous()
        theirs = [(part, part if part.is_contiguous() else torch.empty_like(part)) for part in parts]
        arriving = [self._irecv(buffer, m, tag) for m, (_, buffer) in self._each(theirs)]
        leaving = [self._isend(mine, member, tag) for member in self._others]
        for work in (*arriving, *leaving):
            work.wait()
        for _, (part, buffer) in self._each(theirs):
            if part is not buffer:
                part.copy_(buffer)

    def all_to_all(self, inward: Tensor, in_sizes: Sequence[int], outward: Tensor, out_sizes: Sequence[int]) -> Work:
        tag = self._collective(_EXCHANGE)
        coming, going = torch.split(inward, list(in_sizes)), torch.split(outward, list(out_sizes))
        here = self.members.index(self.me)
        coming[here].copy_(going[here])
        works = [self._irecv(part, member, tag) for member, part in self._each(coming) if part.numel()]
        works += [self._isend(part, member, tag) for member, part in self._each(going) if part.numel()]
        return _SeveralWorks(works)

    def send(self, x: Tensor, target: int) -> Work:
        return self._isend(x, target, self._message(target))

    def receive(self, x: Tensor, source: int) -> Work:
        return self._irecv(x, source, self._message(source))

    def _each(self, things: Sequence[Any]) -> list[tuple[int, Any]]:
        """What belongs to each of the others."""
        return [(m, thing) for m, thing in zip(self.members, things, strict=True) if m != self.me]

    def _double(self, x: Tensor, combine: Any, tag: int, distance: int = 1) -> Work:
        """Recursive doubling: log2(size) exchanges with one peer, so all members combine in the same order. The first
        is under way at once, the others when it is waited for.

        On two CPU cores four ranks take half as long as with gloo's ring, which wakes each of them 2 (size - 1) times
        (Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005).
        """
        theirs, peer = torch.empty_like(x), self.members[self.members.index(self.me) ^ distance]

        def go_on() -> None:
            combine(x, theirs, out=x)
            if 2 * distance < len(self.members):
                self._double(x, combine, tag, 2 * distance).wait()

        return _SeveralWorks([self._irecv(theirs, peer, tag), self._isend(x, peer, tag)], go_on)

    def _combine_in_order(self, x: Tensor, outward: Sequence[Tensor], combine: Any, tag: int) -> Work:
        """To each member its own of `outward`; in `x`, what all have for this one."""
        here = self.members.index(self.me)
        parts = [outward[here].clone() if member == self.me else torch.empty_like(x) for member in self.members]
        works = [self._irecv(part, member, tag) for member, part in self._each(parts)]
        works += [self._isend(part, member, tag) for member, part in self._each(outward)]

        def add() -> None:
            x.copy_(parts[0])
            for part in parts[1:]:
                combine(x, part, out=x)

        return _SeveralWorks(works, add)

    def _collective(self, kind: int) -> int:
        """The tag of the group's next collective; the first one waits until all members have come to theirs."""
        if None not in self._met:
            self._met.add(None)
            self._contact(self._others, _HELLO_ALL)
        return self._tag(kind, None)

    def _message(self, peer: int) -> int:
        """The tag of the pair's next message; the first one waits until the other end has come to its own."""
        if peer not in self._met:
            self._met.add(peer)
            self._contact([peer], _HELLO)
        return self._tag(_MESSAGE, peer)

    def _contact(self, peers: Sequence[int], kind: int) -> None:
        tag = (self._row * 8 + kind) * _TURNS
        works = [self._isend(torch.zeros(1), peer, tag) for peer in peers]
        works += [self._irecv(torch.zeros(1), peer, tag) for peer in peers]
        for work in works:
            work.wait()

    def _tag(self, kind: int, peer: int | None) -> int:
        turn = self._turns[peer]
        self._turns[peer] += 1
        return (self._row * 8 + kind) * _TURNS + turn % _TURNS

    def _isend(self, x: Tensor, target: int, tag: int) -> Work:
        return _MessageWork(self, target, dist.isend(x, target, group=self._group, tag=tag))

    def _irecv(self, x: Tensor, source: int, tag: int) -> Work:
        return _MessageWork(self, source, dist.irecv(x, source, group=self._group, tag=tag))


class _MessageWork:
    """One of gloo's, under way."""

    def __init__(self, between: StrictCommunicator, peer: int, work: Any) -> None:
        self._between, self._peer, self._work = between, peer, work

    def wait(self) -> None:
        one = self._between
        try:
            with one.watch.waiting(one.name, one.me, (self._peer,)):
                self._work.wait(one.patience)
        except RuntimeError as error:
            if "timed out" not in str(error).lower():
                raise
            raise NoAnswer.of(one.name, one.me, self._peer, one.patience.total_seconds()) from error

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())


class _SeveralWorks:
    """And what is to be done when they are over, by whoever waits."""

    def __init__(self, works: Sequence[Work], then: Callable[[], None] | None = None) -> None:
        self._works, self._then = works, then

    def wait(self) -> None:
        for work in self._works:
            work.wait()
        self._works = ()  # gloo's own may be waited for once
        then, self._then = self._then, None
        if then is not None:
            then()

    def is_completed(self) -> bool:
        return self._then is None and all(work.is_completed() for work in self._works)
