"""Sums over all ranks of the job, over the data plane, in a fixed order: inside each pool, then over the pools.

One pool's leader is the root. It adds up the pools' sums in the plan's order and sends the result back, so every rank
of every pool has the same bits. Where there is but one pool, gloo's all-reduce does the same in one go.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from bridge.layout.reshard import Piece
from bridge.rank import RankId
from hetero.transfer.carrier import Place, Receiver, Sender
from hetero.transfer.flow import Carriers, Lane

ROOM = 64
"""Numbers that one message may carry."""


class Totals:
    """`ranks` are the active ranks of every pool, pools in the plan's order; the first rank of a pool leads it.

    `group` holds this pool's active ranks and must take CPU tensors. The instance is for one epoch.
    """

    def __init__(self, carriers: Carriers, ranks: dict[str, Sequence[RankId]], group: dist.ProcessGroup | None) -> None:
        leaders = [members[0] for members in ranks.values()]
        root = leaders[0]
        self._group, self._leader = group, ranks[carriers.me.pool][0]
        self._one_pool = len(leaders) == 1
        self._alone = len(ranks[carriers.me.pool]) == 1
        self._leads = carriers.me == self._leader
        self.is_root = carriers.me == root
        self._up: list[Receiver] | Sender | None = None
        self._down: list[Sender] | Receiver | None = None
        if self.is_root:
            self._up = [_receiver(carriers, leader, root) for leader in leaders[1:]]
            self._down = [_sender(carriers, root, leader) for leader in leaders[1:]]
        elif self._leads:
            self._up = _sender(carriers, carriers.me, root)
            self._down = _receiver(carriers, root, carriers.me)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all active ranks of a CPU vector of at most ROOM float64 or int64 numbers."""
        values = values.clone()
        if self._one_pool:
            if not self._alone:
                dist.all_reduce(values, group=self._group)
            return values
        if not self._alone:
            dist.reduce(values, self._leader.index, group=self._group)
        if self._leads:
            values = self._over_pools(values)
        if not self._alone:
            dist.broadcast(values, self._leader.index, group=self._group)
        return values

    def _over_pools(self, values: torch.Tensor) -> torch.Tensor:
        if isinstance(self._up, list) and isinstance(self._down, list):
            for receiver in self._up:
                values += _take(receiver, values)
            for sender in self._down:
                sender.send([values.view(torch.float64)])
        elif self._up is not None and self._down is not None:
            self._up.send([values.view(torch.float64)])  # type: ignore[union-attr]
            values = _take(self._down, values)  # type: ignore[arg-type]
        return values


def _lane(source: RankId, target: RankId) -> Lane:
    return Lane(source, target, ((0, Piece(source, target, ((0, ROOM),), ((0, ROOM),))),))


def _sender(carriers: Carriers, source: RankId, target: RankId) -> Sender:
    return carriers.sender(_lane(source, target), "control", "totals", torch.float64, 2)


def _receiver(carriers: Carriers, source: RankId, target: RankId) -> Receiver:
    receiver = carriers.receiver(_lane(source, target), "control", "totals", torch.float64, 2)
    receiver.post()
    return receiver


def _take(receiver: Receiver, like: torch.Tensor) -> torch.Tensor:
    """The message, on the host; the next one is expected at once."""
    values = torch.empty_like(like)
    receiver.receive([Place(tuple(like.shape), values.view(torch.float64))])
    receiver.post()
    return values
