"""Which tensors travel together, and in what flows: alike for gradients and for the parameters that come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import torch

from backends.communicator import Communicator
from balancer.cost.sync_traffic import buckets, rounds
from bridge.layout.reshard import Placement, Reshard, copies
from bridge.rank import RankId
from hetero.engine.state.ownership import Holding
from hetero.transfer.flow import Flow
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.rounds import Round

Numbered = tuple[int, list[Holding]]


def in_buckets(tensors: Iterable[Holding], least_bytes: int) -> list[list[Holding]]:
    """Units in the order in which their first tensors are given. A unit's tensors of one route stay together."""
    units: dict[tuple[int, object], list[Holding]] = {}
    for holding in tensors:
        units.setdefault((holding.unit, holding.route), []).append(holding)
    found = buckets(units.values(), lambda unit: unit[0].route, _gradient_bytes, least_bytes)
    return [[holding for unit in bucket for holding in unit] for bucket in found]


def in_rounds(
    found: Sequence[Numbered], me: RankId, shared: Communicator | None, bucket_bytes: int
) -> list[tuple[Communicator | None, list[Numbered]]]:
    """Buckets, in their order, that travel together: as many as let each hub have about a bucket of them. All members
    of `shared` come to the same. What goes to nobody in the pool stands apart, the last; what others of the job hold is
    left out."""
    members = {RankId(me.pool, index) for index in shared.members} if shared is not None else {me}
    ours = [one for one in found if any(holds(holding, rank) for holding in one[1] for rank in members)]
    here = {number: [p for h in bucket for p in h.pools if p.pool == me.pool] for number, bucket in ours}
    together = [one for one in ours if any(pool.others for pool in here[one[0]])]
    hubs = {min(pool.hub.ranks) for number, _ in together for pool in here[number]}
    made = rounds(together, lambda one: _gradient_bytes(one[1]), bucket_bytes, len(hubs))
    apart = [one for one in ours if one not in together]
    return [(shared, one) for one in made] + [(None, apart)] * bool(apart)


def sync_flow(
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


def holds(holding: Holding, rank: RankId) -> bool:
    return any(rank in holder.placement.regions for holder in holding.holders)


def _gradient_bytes(tensors: Iterable[Holding]) -> int:
    return sum(torch.float32.itemsize * prod(holding.owners.layout.shape) for holding in tensors)
