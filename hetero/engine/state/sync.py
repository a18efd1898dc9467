"""Gradients to their owners (law 9); `parameter_return.py` has the way back.

The copies of a pool add up their gradients natively at the pool's hub, which alone sends the sum to the owner. Sums are
made pool by pool, in pipeline order inside each, and in float32, so the result depends neither on arrival nor on who
computed it.

Gradients travel in buckets, each as soon as a rank's last backwards have made all that it has of them, while earlier
units still compute. Inside a pool they go in rounds (`rounds.py`), which everyone issues in one order, that of their
making. What a pool has summed is passed on when its hub has nothing left to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from backends.communicator import Communicator
from hetero.engine.state.buckets import holds, in_buckets, in_rounds, sync_flow
from hetero.engine.state.ownership import Holding
from hetero.transfer.flow import Flow
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.rounds import Round

GRADIENTS = "gradients"
Gradients = Callable[[Iterable[str]], dict[str, torch.Tensor]]


class GradientSync:
    """All gradients of a step. `gradients` gives this rank's float32 sums of the shards that are asked for."""

    def __init__(
        self,
        messenger: PointToPoint,
        shared: Communicator | None,
        tensors: Sequence[Holding],
        bucket_bytes: int,
        gradients: Gradients,
    ) -> None:
        """`shared` are the chips of this pool that this one shares state with."""
        self._gradients = gradients
        self._buckets: list[_Bucket] = []
        self._rounds: list[tuple[Round, list[_Bucket]]] = []
        backwards = sorted(tensors, key=lambda holding: -holding.unit)
        found = list(enumerate(in_buckets(backwards, bucket_bytes)))
        for communicator, numbered in in_rounds(found, messenger.me, shared, bucket_bytes):
            round_ = Round(messenger, communicator, torch.float32)
            made = [_Bucket(messenger, round_, number, bucket) for number, bucket in numbered]
            self._buckets += made
            self._rounds.append((round_, made))
        self._to_give: list[_Bucket] = []
        self._to_issue: list[tuple[Round, list[_Bucket]]] = []

    def begin(self) -> None:
        for bucket in self._buckets:
            bucket.begin()
        self._to_give = [bucket for bucket in self._buckets if bucket.pending]
        self._to_issue = list(self._rounds)

    def made(self, chunk: int, names: Iterable[str]) -> None:
        """The gradients of these tensors that come from a chunk are complete."""
        uses = {(chunk, name) for name in names}
        for bucket in self._to_give:
            bucket.pending -= uses
        while self._to_give and not self._to_give[0].pending:
            bucket = self._to_give.pop(0)
            bucket.give(self._gradients(bucket.names))
        self._issue()

    def sums(self) -> dict[str, torch.Tensor]:
        """The gradients of the tensors owned here, summed over all copies. Blocks until all are in."""
        self._issue()
        assert not self._to_issue, "a chunk has not told of all its gradients"
        for bucket in self._buckets:
            bucket.pass_on()
        found: dict[str, torch.Tensor] = {}
        for round_, made in self._rounds:
            for bucket in made:
                found |= bucket.sums()
            round_.clear()
        return found

    def drain(self) -> None:
        for bucket in self._buckets:
            bucket.drain()

    def _issue(self) -> None:
        """Rounds to which this rank has given all that is its own."""
        while self._to_issue and not any(bucket.pending for bucket in self._to_issue[0][1]):
            self._to_issue.pop(0)[0].issue()


class _Bucket:
    """Tensors that have the same holders and owner, whose gradients travel together."""

    def __init__(self, messenger: PointToPoint, round_: Round, number: int, tensors: list[Holding]) -> None:
        self.names = [holding.name for holding in tensors if holds(holding, messenger.me)]
        self._uses = {
            (chunk, holding.name)
            for holding in tensors
            for holder in holding.holders
            if messenger.me in holder.placement.regions
            for chunk in holder.chunks
        }
        self.pending: set[tuple[int, str]] = set()
        self._owned = any(messenger.me in holding.owners.regions for holding in tensors)
        self._pools = [
            _PoolSum(messenger, round_, f"{GRADIENTS}/{number}.{i}", tensors, i) for i in range(len(tensors[0].pools))
        ]

    def begin(self) -> None:
        self.pending = set(self._uses)
        for pool in self._pools:
            pool.begin()

    def give(self, gradients: dict[str, torch.Tensor]) -> None:
        for pool in self._pools:
            pool.give(gradients)

    def pass_on(self) -> None:
        for pool in self._pools:
            pool.pass_on()

    def sums(self) -> dict[str, torch.Tensor]:
        sums = Sums()
        for pool in self._pools if self._owned else ():
            sums.add(pool.take().items())
        return sums.total

    def drain(self) -> None:
        for pool in self._pools:
            pool.drain()


class _PoolSum:
    """What one pool adds to a bucket: inside the pool to its hub, from there to the owner.

    Where no tensor has more than one contribution in the pool, there is nothing to add up: all go to the owner at once.
    """

    def __init__(self, messenger: PointToPoint, round_: Round, name: str, tensors: list[Holding], index: int) -> None:
        self._me, here = messenger.me, [(holding, holding.pools[index]) for holding in tensors]
        self._parts = [(holding.name, source) for holding, pool in here for source in pool.contributions]
        self._hubs = [(holding.name, pool.hub) for holding, pool in here]
        owners = [holding.owners for holding in tensors]
        self._at_owner = self._hubs[0][1] == owners[0]
        self._inside: Flow | None = None
        self._between: Flow | None = None
        if self._at_owner or len(self._parts) > len(here):
            hubs = [pool.hub for _, pool in here for _ in pool.contributions]
            self._inside = sync_flow(round_, f"{name}.inside", [source for _, source in self._parts], hubs)
        if not self._at_owner:
            sources = [hub for _, hub in self._hubs] if self._inside else [source for _, source in self._parts]
            self._between = sync_flow(messenger, f"{name}.between", sources, owners)
        self._is_hub = any(self._me in hub.regions for _, hub in self._hubs)

    def begin(self) -> None:
        for flow in self._flows():
            flow.begin(1)

    def give(self, gradients: dict[str, torch.Tensor]) -> None:
        mine = [gradients[name] if self._me in source.regions else None for name, source in self._parts]
        if any(gradient is not None for gradient in mine):
            self._flows()[0].send_tensors(mine)

    def pass_on(self) -> None:
        """Sends what the pool has added up here. Blocks until the last summand is in."""
        if self._inside and self._between and self._is_hub:
            subtotal = self._subtotal(self._inside)
            self._between.send_tensors([subtotal.get(name) for name, _ in self._hubs])

    def take(self) -> dict[str, torch.Tensor]:
        """At an owner: what the pool adds to the tensors owned here. Blocks until it is in."""
        if self._between is None:
            assert self._inside is not None
            return self._subtotal(self._inside)
        found = zip(self._hubs, self._between.receive_tensors(), strict=True)
        return {name: gradient for (name, _), gradient in found if gradient is not None}

    def drain(self) -> None:
        for flow in self._flows():
            flow.drain()

    def _flows(self) -> list[Flow]:
        return [flow for flow in (self._inside, self._between) if flow is not None]

    def _subtotal(self, inside: Flow) -> dict[str, torch.Tensor]:
        sums, found = Sums(), zip(self._parts, inside.receive_tensors(), strict=True)
        sums.add((name, gradient) for (name, _), gradient in found if gradient is not None)
        return sums.total


class Sums:
    """`total` of what is added, by name and in that order. None of it is written to: the first sum of two is a new
    tensor, and takes all others."""

    def __init__(self) -> None:
        self.total: dict[str, torch.Tensor] = {}
        self._made: set[str] = set()

    def add(self, gradients: Iterable[tuple[str, torch.Tensor]]) -> None:
        for name, gradient in gradients:
            if name in self._made:
                self.total[name] += gradient
            elif name in self.total:
                self.total[name] = self.total[name] + gradient
                self._made.add(name)
            else:
                self.total[name] = gradient
