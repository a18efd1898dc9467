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
from hetero.transfer.messages import Destination, MessageSpec, Receiver, Sender
from hetero.transfer.point_to_point import PointToPoint

ROOM = 64
"""Numbers that one message may carry."""


class Totals:
    """`ranks` are the active ranks of every pool, pools in the plan's order; the first rank of a pool leads it.

    `group` holds this pool's active ranks and must take CPU tensors. The instance is for one epoch.
    """

    def __init__(
        self, messenger: PointToPoint, ranks: dict[str, Sequence[RankId]], group: dist.ProcessGroup | None
    ) -> None:
        leaders = [members[0] for members in ranks.values()]
        root = leaders[0]
        self._group, self._leader = group, ranks[messenger.me.pool][0]
        self._one_pool = len(leaders) == 1
        self._alone = len(ranks[messenger.me.pool]) == 1
        self._leads = messenger.me == self._leader
        self.is_root = messenger.me == root
        self._up: list[Receiver] | Sender | None = None
        self._down: list[Sender] | Receiver | None = None
        if self.is_root:
            self._up = [_receiver(messenger, leader, root) for leader in leaders[1:]]
            self._down = [_sender(messenger, root, leader) for leader in leaders[1:]]
        elif self._leads:
            self._up = _sender(messenger, messenger.me, root)
            self._down = _receiver(messenger, root, messenger.me)

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
                sender.send_pieces([values.view(torch.float64)])
        elif self._up is not None and self._down is not None:
            self._up.send_pieces([values.view(torch.float64)])  # type: ignore[union-attr]
            values = _take(self._down, values)  # type: ignore[arg-type]
        return values


def _message(source: RankId, target: RankId) -> MessageSpec:
    return MessageSpec(source, target, ((0, Piece(source, target, ((0, ROOM),), ((0, ROOM),))),))


def _sender(messenger: PointToPoint, source: RankId, target: RankId) -> Sender:
    return messenger.sender(_message(source, target), "control", "totals", torch.float64, 2)


def _receiver(messenger: PointToPoint, source: RankId, target: RankId) -> Receiver:
    receiver = messenger.receiver(_message(source, target), "control", "totals", torch.float64, 2)
    receiver.post()
    return receiver


def _take(receiver: Receiver, like: torch.Tensor) -> torch.Tensor:
    """The message, on the host; the next one is expected at once."""
    values = torch.empty_like(like)
    receiver.receive_pieces([Destination(tuple(like.shape), values.view(torch.float64))])
    receiver.post()
    return values
