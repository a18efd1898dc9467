"""Updated parameters back to every copy, while the next step begins (law 9).

An owner gives what it has updated slice by slice, in the order in which forwards come to it, and a rank waits for the
tensors of a unit when it is about to use them. Between pools each parameter crosses once, to the pool's hub; inside a
pool the copies get theirs in rounds, which all members issue in one order.

Nobody may stand still for others while a round waits for him. So a round is issued as soon as its owners have given
theirs; but if another pool owns some of it, when the rank comes to a unit of it, and at last before it waits for
anybody else. Which rounds these are depends on the plan alone: ranks of one tensor-parallel group come to the same
units, and issue rounds between the same collectives. So it is with what an owner updates in host memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from backends.communicator import Communicator
from bridge.rank import RankId
from hetero.engine.state.buckets import holds, in_buckets, in_rounds, sync_flow
from hetero.engine.state.ownership import Holding
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.rounds import Round

PARAMETERS = "parameters"
Tensors = Mapping[str, torch.Tensor]


class ParameterReturn:
    """`values` are the rank's shards, which are written to; `dtypes` are what the pools compute in.

    A turn is `begin`, `give` for each of `slices`, and `wait` for each unit, with `join` before the rank waits for
    anybody else. `settle` ends it, and must come before what was given is written to.
    """

    def __init__(
        self,
        messenger: PointToPoint,
        shared: Communicator | None,
        tensors: Sequence[Holding],
        bucket_bytes: int,
        values: Tensors,
        dtypes: Mapping[str, torch.dtype],
        in_host: Collection[RankId] = (),
    ) -> None:
        """`shared` are the chips of this pool that this one shares state with; `in_host` those ranks of the job that
        update in host memory, and give what they have while the next step begins."""
        me, self._values = messenger.me, {name: value.detach() for name, value in values.items()}
        forwards = sorted(tensors, key=lambda holding: holding.unit)
        buckets = [bucket[::-1] for bucket in in_buckets(forwards[::-1], bucket_bytes)[::-1]]
        self.slices = _slices(buckets, me, apart=me in in_host)
        self._crossings = sorted(_crossings(messenger, buckets, dtypes), key=lambda crossing: crossing.first)
        alone = [(number, [holding]) for number, holding in enumerate(forwards)]
        rounds = in_rounds(alone, me, shared, bucket_bytes)
        self._rounds = [
            _ReturnRound(messenger, communicator, number, [h for _, [h] in found], dtypes[me.pool], in_host)
            for number, (communicator, found) in enumerate(rounds)
            if communicator is not None
        ]
        sent = set[str]().union(*(one.owned for one in self._crossings), *(one.owned for one in self._rounds))
        self.owed = max((holding.unit for holding in tensors if holding.name in sent), default=-1)
        """The last unit of which others wait for what is owned here; -1 if none."""
        self._given: dict[str, torch.Tensor] = {}
        self._to_send: list[_Crossing] = []
        self._to_take: list[_Crossing] = []
        self._to_issue: list[_ReturnRound] = []
        self._under_way: list[_ReturnRound] = []

    def begin(self) -> None:
        """Ends the turn before."""
        self.settle()
        self._given.clear()
        self._to_send = [crossing for crossing in self._crossings if crossing.owned]
        self._to_take = [crossing for crossing in self._crossings if crossing.comes]
        self._to_issue = list(self._rounds)
        self._issue_given()

    def give(self, masters: Tensors, values: Tensors | None = None) -> None:
        """A slice of what is owned here is up to date; `values` are the masters as the chip computes with them, if
        somebody has made these. Does not wait."""
        for name, value in (masters if values is None else values).items():
            if self._values[name].data_ptr() != value.data_ptr():
                self._values[name].copy_(value, non_blocking=True)
        self._given |= masters
        for crossing in [found for found in self._to_send if found.owned <= self._given.keys()]:
            crossing.send(self._values, self._given)
            self._to_send.remove(crossing)
        self._issue_given()

    def reach(self, unit: int) -> int:
        """What must be given before `wait` for a unit: all up to this one."""
        return max([unit, *(round_.last for round_ in self._to_issue if round_.first <= unit)])

    def wait(self, unit: int) -> None:
        """Until this rank's tensors of a unit are up to date. Units come in ascending order."""
        self._issue_through(unit)
        self._take_through(unit)
        while self._under_way and self._under_way[0].first <= unit:
            self._under_way.pop(0).take(self._values)

    def join(self) -> None:
        """Issues all rounds that others wait for, when this rank has what it must put into them."""
        if self._to_issue:
            self._issue_through(self._to_issue[-1].last)

    def settle(self) -> None:
        """Until all of this rank's tensors are up to date, and all that it gave has arrived."""
        self.join()
        for crossing in self._to_take:
            crossing.take(self._values)
        for round_ in self._under_way:
            round_.take(self._values)
        self._to_take, self._under_way = [], []
        for crossing in self._crossings:
            crossing.drain()

    def _issue_given(self) -> None:
        while self._to_issue and not self._to_issue[0].late and self._to_issue[0].owned <= self._given.keys():
            self._issue_next()

    def _issue_through(self, unit: int) -> None:
        while self._to_issue and self._to_issue[0].first <= unit:
            self._take_through(self._to_issue[0].last)
            self._issue_next()

    def _issue_next(self) -> None:
        round_ = self._to_issue.pop(0)
        assert round_.owned <= self._given.keys(), "an owner has not given all of a round"
        round_.issue(self._values)
        self._under_way.append(round_)

    def _take_through(self, unit: int) -> None:
        while self._to_take and self._to_take[0].first <= unit:
            self._to_take.pop(0).take(self._values)


class _Crossing:
    """A bucket's way from its owner to the hub of another pool."""

    def __init__(
        self, messenger: PointToPoint, name: str, bucket: Sequence[Holding], pool: int, dtype: torch.dtype
    ) -> None:
        me, hubs = messenger.me, [holding.pools[pool].hub for holding in bucket]
        self.first = min(holding.unit for holding in bucket)
        self.owned = {holding.name for holding in bucket if me in holding.owners.ranks}
        self._names = [holding.name for holding in bucket]
        self._comes = [me in hub.regions for hub in hubs]
        self.comes = any(self._comes)
        self._dtype = dtype
        self._flow = sync_flow(messenger, name, [holding.owners for holding in bucket], hubs, dtype)
        self._flow.begin(1)

    def send(self, values: Tensors, masters: Tensors) -> None:
        """Values where they have the other pool's precision, else masters, rounded."""
        held = {name: value if (value := values[name]).dtype == self._dtype else masters[name] for name in self.owned}
        sent = {name: tensor.to(values[name].device, self._dtype) for name, tensor in held.items()}
        self._flow.send_tensors([sent.get(name) for name in self._names])

    def take(self, values: Tensors) -> None:
        """And expects the next turn's."""
        pairs = zip(self._names, self._comes, strict=True)
        self._flow.receive_tensors([values[name] if comes else None for name, comes in pairs])
        self._flow.begin(1)

    def drain(self) -> None:
        self._flow.drain()


class _ReturnRound:
    """What a pool's hubs give to its other copies at once. `late` says that some of it is there later than a step ends:
    it comes from another pool, or its owner updates in host memory."""

    def __init__(
        self,
        messenger: PointToPoint,
        communicator: Communicator,
        number: int,
        tensors: Sequence[Holding],
        dtype: torch.dtype,
        in_host: Collection[RankId],
    ) -> None:
        me = messenger.me
        here = [(holding, pool) for holding in tensors for pool in holding.pools if pool.pool == me.pool]
        self.first, self.last = tensors[0].unit, tensors[-1].unit
        self.owned = {holding.name for holding in tensors if me in holding.owners.ranks}
        self.late = any(h.owners != pool.hub or not set(h.owners.ranks).isdisjoint(in_host) for h, pool in here)
        uses = [(h.name, pool.hub, holder.placement) for h, pool in here for holder in pool.holders]
        self._gives = [(name, me in hub.regions) for name, hub, _ in uses]
        self._takes = [(name, me in placement.regions) for name, _, placement in uses]
        self._round = Round(messenger, communicator, dtype)
        hubs, targets = [hub for _, hub, _ in uses], [placement for *_, placement in uses]
        self._flow = sync_flow(self._round, f"{PARAMETERS}/1.{number}", hubs, targets, dtype)

    def issue(self, values: Tensors) -> None:
        self._flow.begin(1)
        self._flow.send_tensors([values[name] if mine else None for name, mine in self._gives])
        self._round.issue()

    def take(self, values: Tensors) -> None:
        self._flow.receive_tensors([values[name] if mine else None for name, mine in self._takes])
        self._round.clear()


def _slices(buckets: Sequence[Sequence[Holding]], me: RankId, apart: bool) -> list[list[str]]:
    """What is owned here, the first needed first: each bucket `apart`, or those alone of which somebody else has a
    copy, and at last all others."""
    first, last = list[tuple[int, list[str]]](), list[str]()
    for bucket in buckets:
        if owned := [holding.name for holding in bucket if me in holding.owners.ranks]:
            if apart or any(has_copies(holding) for holding in bucket):
                first.append((bucket[0].unit, owned))
            else:
                last += owned
    return [names for _, names in sorted(first)] + [last] * bool(last)


def has_copies(holding: Holding) -> bool:
    return any(rank not in holding.owners.ranks for holder in holding.holders for rank in holder.placement.regions)


def _crossings(
    messenger: PointToPoint, buckets: Sequence[Sequence[Holding]], dtypes: Mapping[str, torch.dtype]
) -> Iterator[_Crossing]:
    """Those that this rank has an end of: of a bucket, all tensors have the same pools and hubs."""
    for number, bucket in enumerate(buckets):
        if not any(holds(holding, messenger.me) for holding in bucket):
            continue
        for i, pool in enumerate(bucket[0].pools):
            if pool.hub != bucket[0].owners:
                name = f"{PARAMETERS}/0.{number}.{i}"
                yield _Crossing(messenger, name, bucket, i, dtypes[pool.pool])
