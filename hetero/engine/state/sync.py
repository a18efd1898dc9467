"""Gradients to their owners, parameters back to every copy (law 9).

The copies of a pool add up their gradients natively at the pool's hub, which alone sends the sum to the owner; the
parameters come back by the same way. Sums are made pool by pool, in pipeline order inside each, and in float32, so the
result depends neither on arrival nor on who computed it.

Gradients travel in buckets, each as soon as a rank's last backwards have made all that it has of them, while earlier
units still compute. Inside a pool they go in rounds (`rounds.py`), which everyone issues in one order, that of their
making. What a pool has summed is passed on when its hub has nothing left to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import prod

import torch

from backends.communicator import Communicator
from balancer.cost.sync_traffic import buckets
from bridge.layout.reshard import Placement, Reshard, copies
from bridge.rank import RankId
from hetero.engine.state.ownership import Holding, PoolHolders
from hetero.transfer.flow import Flow
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.rounds import Round

GRADIENTS, PARAMETERS = "gradients", "parameters"
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
        found = list(enumerate(_in_buckets(tensors, bucket_bytes)))
        for communicator, numbered in _in_rounds(found, messenger.me, shared, bucket_bytes):
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
        self.names = [holding.name for holding in tensors if _holds(holding, messenger.me)]
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
        total: dict[str, torch.Tensor] = {}
        for pool in self._pools if self._owned else ():
            for name, gradient in pool.take().items():
                total[name] = total[name] + gradient if name in total else gradient
        return total

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
            self._inside = _flow(round_, f"{name}.inside", [source for _, source in self._parts], hubs)
        if not self._at_owner:
            sources = [hub for _, hub in self._hubs] if self._inside else [source for _, source in self._parts]
            self._between = _flow(messenger, f"{name}.between", sources, owners)
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
        total: dict[str, torch.Tensor] = {}
        for (name, _), gradient in zip(self._parts, inside.receive_tensors(), strict=True):
            if gradient is not None:
                total[name] = total[name] + gradient if name in total else gradient
        return total


class ParameterReturn:
    """The owners' parameters to every other copy, in the precision that the copy computes in: to the hubs of the other
    pools, then from each hub to the copies of its pool, in rounds of some bytes. `dtypes` are the pools' precisions."""

    def __init__(
        self,
        messenger: PointToPoint,
        shared: Communicator | None,
        tensors: Sequence[Holding],
        bucket_bytes: int,
        parameters: dict[str, torch.Tensor],
        dtypes: Mapping[str, torch.dtype],
    ) -> None:
        self._me, self._parameters = messenger.me, {name: shard.detach() for name, shard in parameters.items()}
        self._dtype = dtypes[self._me.pool]
        away: dict[torch.dtype, list[tuple[Holding, PoolHolders]]] = {}
        for holding in tensors:
            for pool in (pool for pool in holding.pools if pool.hub != holding.owners):
                away.setdefault(dtypes[pool.pool], []).append((holding, pool))
        self._away = [
            (_flow(messenger, f"{PARAMETERS}/0.{i}", [h.owners for h, _ in to], [p.hub for _, p in to], dtype), to)
            for i, (dtype, to) in enumerate(away.items())
        ]
        found = list(enumerate([holding] for holding in tensors))
        self._rounds = []
        for number, (communicator, numbered) in enumerate(_in_rounds(found, messenger.me, shared, bucket_bytes)):
            uses = [(h, p, c.placement) for _, [h] in numbered for p in h.pools for c in p.holders]
            round_ = Round(messenger, communicator, self._dtype)
            hubs, targets = [pool.hub for _, pool, _ in uses], [to for *_, to in uses]
            flow = _flow(round_, f"{PARAMETERS}/1.{number}", hubs, targets, self._dtype)
            self._rounds.append((uses, round_, flow))

    def begin(self) -> None:
        for flow, _ in self._away:
            flow.begin(1)

    def run(self, owned: Callable[[torch.dtype], dict[str, torch.Tensor]]) -> None:
        """`owned` gives the updated shards in a precision. Blocks until this rank's copies are up to date.

        One round is under way while the one before is unpacked."""
        shards = cache(owned)
        for flow, to in self._away:
            flow.send_tensors([shards(flow.dtype)[h.name] if self._me in h.owners.regions else None for h, _ in to])
            flow.receive_tensors([self._shard(h, pool.hub) for h, pool in to])
        mine = shards(self._dtype)
        under_way: list[tuple[Round, Flow, list[torch.Tensor | None]]] = []
        for uses, round_, flow in self._rounds:
            flow.begin(1)
            flow.send_tensors([self._at_hub(h, pool, mine) for h, pool, _ in uses])
            round_.issue()
            under_way.append((round_, flow, [self._shard(h, placement) for h, _, placement in uses]))
            if len(under_way) > 1:
                _take(*under_way.pop(0))
        for last in under_way:
            _take(*last)
        for flow, _ in self._away:
            flow.drain()

    def _at_hub(self, holding: Holding, pool: PoolHolders, owned: dict[str, torch.Tensor]) -> torch.Tensor | None:
        shard = self._shard(holding, pool.hub)
        return owned[holding.name] if shard is not None and pool.hub == holding.owners else shard

    def _shard(self, holding: Holding, placement: Placement) -> torch.Tensor | None:
        return self._parameters[holding.name] if self._me in placement.regions else None


def _take(round_: Round, flow: Flow, into: list[torch.Tensor | None]) -> None:
    flow.receive_tensors(into)
    round_.clear()


Numbered = tuple[int, list[Holding]]


def _in_rounds(
    found: Sequence[Numbered], me: RankId, shared: Communicator | None, bucket_bytes: int
) -> list[tuple[Communicator | None, list[Numbered]]]:
    """Buckets, in their order, that travel together: as many as let each hub have about a bucket of them. All members
    of `shared` come to the same. What goes to nobody in the pool stands apart, the last; what others of the job hold is
    left out."""
    members = {RankId(me.pool, index) for index in shared.members} if shared is not None else {me}
    ours = [one for one in found if any(_holds(holding, rank) for holding in one[1] for rank in members)]
    here = {number: [p for h in bucket for p in h.pools if p.pool == me.pool] for number, bucket in ours}
    together = [one for one in ours if any(pool.others for pool in here[one[0]])]
    hubs = {min(pool.hub.ranks) for number, _ in together for pool in here[number]}
    rounds: list[list[Numbered]] = [[]]
    for one in together:
        rounds[-1].append(one)
        if sum(_gradient_bytes(bucket) for _, bucket in rounds[-1]) >= bucket_bytes * len(hubs):
            rounds.append([])
    apart = [one for one in ours if one not in together]
    return [(shared, one) for one in rounds if one] + [(None, apart)] * bool(apart)


def _in_buckets(tensors: Iterable[Holding], least_bytes: int) -> list[list[Holding]]:
    """From the last unit on, as backwards make them. A unit's tensors of one route stay together."""
    units: dict[tuple[int, object], list[Holding]] = {}
    for holding in sorted(tensors, key=lambda holding: -holding.unit):
        units.setdefault((holding.unit, holding.route), []).append(holding)
    found = buckets(units.values(), lambda unit: unit[0].route, _gradient_bytes, least_bytes)
    return [[holding for unit in bucket for holding in unit] for bucket in found]


def _gradient_bytes(tensors: Iterable[Holding]) -> int:
    return sum(torch.float32.itemsize * prod(holding.owners.layout.shape) for holding in tensors)


def _flow(
    messenger: PointToPoint | Round,
    name: str,
    sources: Sequence[Placement],
    targets: Sequence[Placement],
    dtype: torch.dtype = torch.float32,
) -> Flow:
    """One turn in each step; every target gets the whole of its shard."""
    reshards = [Reshard(copies(source, target), ()) for source, target in zip(sources, targets, strict=True)]
    shapes = [target.local_shape(messenger.me) for target in targets]
    return Flow(messenger, "sync", name, reshards, shapes, dtype, window=1)


def _holds(holding: Holding, rank: RankId) -> bool:
    return any(rank in holder.placement.regions for holder in holding.holders)
