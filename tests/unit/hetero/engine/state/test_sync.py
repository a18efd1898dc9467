"""Gradients and parameters between copies of any layout: all of it, once between two pools, in a fixed order."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.cpu import CpuBackend
from bridge.layout.layout import Region, TensorLayout, whole
from bridge.layout.reshard import Placement
from bridge.rank import RankId
from hetero.engine.state.buckets import in_buckets
from hetero.engine.state.ownership import Holder, Holding, contributions
from hetero.engine.state.parameter_return import ParameterReturn
from hetero.engine.state.sync import GradientSync, Sums
from hetero.engine.wiring import sharing
from hetero.layers.live_bytes import LiveBytes
from hetero.transfer.messages import Destination, MessageSpec, unpack
from hetero.transfer.waits import Waits
from tests.examples import out_of_100
from tests.patience import WAIT_S
from tests.unit.hetero.engine.placements import numbered, part_of, shard

POOLS = ("a", "b", "a", "b", "a")
"""Of each pipeline."""


SOME: dict[int, tuple[Region | None, ...]] = {
    2: (None, ((0, 8), (0, 2))),
    4: (((4, 8), (0, 1)), None, ((4, 8), (1, 2)), ((0, 4), (0, 2))),
}
"""Of a tensor of shape (8, 2), as a size's positions hold it: some nothing, and cut in both dimensions."""


class Wire:
    """Messages between two threads."""

    def __init__(self) -> None:
        self._sent: queue.Queue[torch.Tensor] = queue.Queue()
        self.numel = 0

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([piece.reshape(-1) for piece in pieces])
        self.numel += len(flat)
        self._sent.put(flat)

    def receive_pieces(self, places: Sequence[Destination]) -> list[torch.Tensor]:
        return unpack(self._sent.get(timeout=WAIT_S), places)

    def post(self) -> None: ...

    def drain(self) -> None: ...


class AllToAll:
    """The chips of a pool, each a thread."""

    def __init__(self, pool: str, members: Sequence[int], wires: Wires, me: int) -> None:
        self.pool, self.members, self.me, self._wires = pool, tuple(members), me, wires
        self._turn = 0

    def all_to_all(self, inward: torch.Tensor, in_sizes: Any, outward: torch.Tensor, out_sizes: Any) -> Any:
        for member, part in zip(self.members, outward.split(out_sizes), strict=True):
            self._wire(self.me, member).send_pieces([part])
        self._turn += 1
        wires = [self._wire(member, self.me, self._turn - 1) for member in self.members]
        return SimpleNamespace(wait=lambda: self._take(wires, inward.split(in_sizes)))

    def _take(self, wires: Sequence[Wire], parts: Sequence[torch.Tensor]) -> None:
        for wire, part in zip(wires, parts, strict=True):
            wire.receive_pieces([Destination(tuple(part.shape), part)])

    def _wire(self, source: int, target: int, turn: int | None = None) -> Wire:
        name = f"exchange {self._turn if turn is None else turn}"
        return self._wires.by_flow.setdefault((RankId(self.pool, source), RankId(self.pool, target), name), Wire())


class Wires:
    def __init__(self) -> None:
        self.by_flow: dict[tuple[RankId, RankId, str], Wire] = {}

    def shared_by(self, me: RankId, tensors: Sequence[Holding]) -> Any:
        """As an epoch makes it for a rank."""
        [members] = [found for found in sharing(tensors, me.pool) if me.index in found]
        return AllToAll(me.pool, sorted(members), self, me.index) if len(members) > 1 else None

    def seen_by(self, me: RankId) -> Any:
        backend = CpuBackend()
        return SimpleNamespace(me=me, backend=backend, waits=Waits(backend), sender=self._end, receiver=self._end)

    def _end(self, message: MessageSpec, purpose: str, name: str, *_: Any) -> Wire:
        return self.by_flow.setdefault((message.source, message.target, name), Wire())

    def crossed(self) -> int:
        """Elements that went from one pool to another."""
        return sum(wire.numel for (source, target, _), wire in self.by_flow.items() if source.pool != target.pool)


def _layout(shape: tuple[int, ...], size: int, kind: str) -> TensorLayout:
    if kind == "whole":
        return TensorLayout.replicated(shape, size)
    if kind == "some" and size > 1:
        return TensorLayout(shape, SOME[size])
    if kind == "split" or size == 1:
        return TensorLayout.split(shape, 0, size)
    return TensorLayout.split_heads(shape, 0, 2, size, shape[0] // 2)  # summed replicas where size is 4


@st.composite
def _models(draw: st.DrawFn) -> list[Holding]:
    """Four tensors, each held by one to five pipelines in two pools; the same pipelines for all of them."""
    pipelines = draw(st.integers(1, len(POOLS)))
    sizes = [draw(st.sampled_from([1, 2, 4])) for _ in range(pipelines)]
    tensors = []
    for unit, (shape, kind) in enumerate((((8, 3), "split"), ((8,), "whole"), ((8, 2), "heads"), ((8, 2), "some"))):
        holders = [
            Holder(p, 0, frozenset({0}), Placement(_layout(shape, size, kind), _ranks(p, size)))
            for p, size in enumerate(sizes)
        ]
        tensors.append(Holding(f"t{unit}", unit, tuple(holders), draw(st.integers(0, pipelines - 1))))
    return tensors


def _ranks(pipeline: int, size: int) -> tuple[RankId, ...]:
    return tuple(RankId(POOLS[pipeline], 4 * pipeline + position) for position in range(size))


def _parts(holding: Holding) -> list[tuple[int, Placement]]:
    """Everything that is added up, with the factor that stands for it here."""
    every = [part for holder in holding.holders for part in contributions(holder)]
    return list(enumerate(every, 1))


def _gradient(holding: Holding, rank: RankId) -> torch.Tensor:
    """Of a rank's shard: whole numbers, so that every order of summing gives the same."""
    for factor, part in _parts(holding):
        if (mine := part_of(numbered(holding.owners.layout.shape), part, rank)) is not None:
            return factor * mine
    raise AssertionError(rank)


def _held(tensors: list[Holding], rank: RankId) -> list[Holding]:
    """Those of which a rank holds some."""
    return [h for h in tensors if any(rank in holder.placement.regions for holder in h.holders)]


def _everyone(tensors: list[Holding]) -> list[RankId]:
    return sorted({rank for holding in tensors for holder in holding.holders for rank in holder.placement.ranks})


def _at_once(work: Callable[[RankId], Any], everyone: list[RankId]) -> dict[RankId, Any]:
    with ThreadPoolExecutor(len(everyone)) as pool:
        return dict(zip(everyone, pool.map(work, everyone), strict=True))


def _other_pools(tensors: list[Holding]) -> int:
    """Elements of each tensor, once for each pool that does not own it."""
    return sum(numbered(h.owners.layout.shape).numel() * (len(h.pools) - 1) for h in tensors)


@pytest.mark.slow
@out_of_100(30)
@given(_models(), st.sampled_from([1, 1 << 20]))
def test_owners_get_the_sum_of_all_and_each_pool_sends_it_once(tensors: list[Holding], bucket_bytes: int) -> None:
    wires = Wires()

    def step(me: RankId) -> dict[str, torch.Tensor]:
        def mine(names: Any) -> dict[str, torch.Tensor]:
            return {h.name: _gradient(h, me) for h in tensors if h.name in set(names)}

        sync = GradientSync(wires.seen_by(me), wires.shared_by(me, tensors), tensors, bucket_bytes, mine)
        found: dict[str, torch.Tensor] = {}
        for _ in range(2):
            sync.begin()
            for holding in reversed(_held(tensors, me)):
                sync.made(0, [holding.name])
            found = sync.sums()
            sync.drain()
        return found

    sums = _at_once(step, _everyone(tensors))
    for holding in tensors:
        factor = sum(factor for factor, _ in _parts(holding))
        whole = factor * numbered(holding.owners.layout.shape)
        for rank, found in sums.items():
            owned = rank in holding.owners.ranks
            assert owned == (holding.name in found)
            if owned:
                part = shard(whole, holding.owners.layout, holding.owners.ranks.index(rank))
                assert torch.equal(found[holding.name], part)
    assert wires.crossed() == 2 * _other_pools(tensors)


DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@pytest.mark.slow
@out_of_100(30)
@given(_models(), st.fixed_dictionaries({"a": DTYPES, "b": DTYPES}), st.sampled_from([1, 1 << 20]))
def test_all_copies_get_the_owner_s_values_rounded_once_and_each_pool_receives_them_once(
    tensors: list[Holding], dtypes: dict[str, torch.dtype], bucket_bytes: int
) -> None:
    """In two turns; a copy has a tensor as soon as it has waited for its unit."""
    wires, arrived = Wires(), dict[tuple[RankId, str], torch.Tensor]()

    def thirds(holding: Holding) -> torch.Tensor:
        return numbered(holding.owners.layout.shape) / 3

    def step(me: RankId) -> None:
        held = {h.name: torch.zeros_like(_gradient(h, me), dtype=dtypes[me.pool]) for h in _held(tensors, me)}
        shared = wires.shared_by(me, tensors)
        back = ParameterReturn(wires.seen_by(me), shared, tensors, bucket_bytes, held, dtypes)
        masters = {
            h.name: shard(thirds(h), h.owners.layout, h.owners.ranks.index(me)) for h in tensors if me in h.owners.ranks
        }
        for _ in range(2):
            back.begin()
            for names in back.slices:
                back.give({name: masters[name] for name in names})
            for holding in _held(tensors, me):
                back.wait(holding.unit)
                arrived[me, holding.name] = held[holding.name].clone()
                held[holding.name].zero_()
            back.join()
        back.settle()

    _at_once(step, _everyone(tensors))
    for rank in _everyone(tensors):
        for holding in _held(tensors, rank):
            [placement] = [holder.placement for holder in holding.holders if rank in holder.placement.ranks]
            wanted = part_of(thirds(holding), placement, rank)
            assert wanted is not None
            assert torch.equal(arrived[rank, holding.name], wanted.to(dtypes[rank.pool]))
    assert wires.crossed() == 2 * _other_pools(tensors)


@pytest.mark.parametrize("other", [RankId("a", 1), RankId("b", 0)])
def test_a_copy_waits_for_the_units_that_it_needs_and_for_no_later_one(other: RankId) -> None:
    """Two units, of which the owner has given one, to a copy of its pool or of another."""
    ranks = [RankId("a", 0), other]
    places = [Placement(TensorLayout.replicated((4,), 1), (rank,)) for rank in ranks]
    holders = tuple(Holder(p, 0, frozenset({0}), place) for p, place in enumerate(places))
    tensors = [Holding(f"t{unit}", unit, holders, 0) for unit in range(2)]
    wires, dtypes = Wires(), {"a": torch.float32, "b": torch.float32}
    owned, copied = ({t.name: torch.full((4,), value) for t in tensors} for value in (1.0, 0.0))
    owner, copy = (
        ParameterReturn(wires.seen_by(me), wires.shared_by(me, tensors), tensors, 1, values, dtypes)
        for me, values in zip(ranks, (owned, copied), strict=True)
    )
    assert owner.slices == [["t0"], ["t1"]]
    owner.begin()
    copy.begin()
    owner.give({"t0": owned["t0"]})
    copy.wait(0)
    assert [copied[t.name][0].item() for t in tensors] == [1.0, 0.0]
    owner.give({"t1": owned["t1"]})
    copy.settle()
    assert copied["t1"][0].item() == 1.0


def test_a_chip_shares_state_only_with_those_that_hold_the_same_tensors() -> None:
    """t0 lies on a:0 and a:1 and in b; t1 on a:3 alone of four chips."""
    first = Holder(0, 0, frozenset({0}), Placement(TensorLayout.split((8, 2), 0, 2), _ranks(0, 2)))
    other = Holder(1, 0, frozenset({0}), Placement(TensorLayout.split((8, 2), 0, 2), _ranks(1, 2)))
    nothing = TensorLayout((4, 2), (None, None, None, whole((4, 2))))
    alone = Holder(0, 0, frozenset({0}), Placement(nothing, _ranks(0, 4)))
    tensors = [Holding("t0", 0, (first, other), 0), Holding("t1", 1, (alone,), 0)]
    assert sharing(tensors, "a") == [{0, 1}, {3}]
    assert sharing(tensors, "b") == [{4, 5}]


def test_the_order_of_a_sum_is_pool_by_pool_and_pipeline_by_pipeline() -> None:
    """Numbers whose sum depends on it: 2^24 + (1 + 1) is 2^24 + 2, (2^24 + 1) + 1 is 2^24."""
    ranks = [RankId("a", 0), RankId("b", 0), RankId("b", 1)]
    places = [Placement(TensorLayout.replicated((1,), 1), (rank,)) for rank in ranks]
    holders = tuple(Holder(p, 0, frozenset({0}), place) for p, place in enumerate(places))
    values = dict(zip(ranks, (2.0**24, 1.0, 1.0), strict=True))
    wires = Wires()

    def step(me: RankId) -> dict[str, torch.Tensor]:
        tensors = [Holding("t", 0, holders, 0)]
        shared = wires.shared_by(me, tensors)
        sync = GradientSync(wires.seen_by(me), shared, tensors, 1, lambda names: {"t": torch.tensor([values[me]])})
        sync.begin()
        sync.made(0, ["t"])
        return sync.sums()

    assert _at_once(step, ranks)[ranks[0]]["t"].item() == 2.0**24 + 2


def test_a_sum_of_many_takes_no_more_than_the_sum_and_one_that_is_added() -> None:
    def came(value: float) -> list[tuple[str, torch.Tensor]]:
        return [("weight", torch.full((64,), value))]

    sums, own = Sums(), torch.ones(64)
    sums.add([("weight", own)])
    with LiveBytes() as live:
        for value in (2.0, 3.0, 4.0):
            sums.add(came(value))
    assert live.peak == 2 * own.nbytes
    assert torch.equal(sums.total["weight"], torch.full((64,), 10.0))
    assert torch.equal(own, torch.ones(64))


def test_a_bucket_leaves_when_the_last_of_its_gradients_is_made() -> None:
    """Two units on one rank, owned by another: nothing is asked for before it is complete, and then once."""
    ranks = [RankId("a", 0), RankId("b", 0)]
    holders = tuple(
        Holder(p, 0, frozenset({0, 1}), Placement(TensorLayout.replicated((4,), 1), (rank,)))
        for p, rank in enumerate(ranks)
    )
    tensors = [Holding(f"t{unit}", unit, holders, 1) for unit in range(2)]
    for bucket_bytes, expected in ((1, [["t1"], ["t0"]]), (1 << 20, [["t1", "t0"]])):
        asked: list[list[str]] = []

        def gradients(names: Any, asked: list[list[str]] = asked) -> dict[str, torch.Tensor]:
            asked.append(list(names))
            return {name: torch.ones(4) for name in names}

        sync = GradientSync(Wires().seen_by(ranks[0]), None, tensors, bucket_bytes, gradients)
        sync.begin()
        sync.made(0, ["t1", "t0"])  # the other chunk's part of them is still to come
        assert asked == []
        sync.made(1, ["t1"])
        assert asked == expected[: len(expected) - 1]
        sync.made(1, ["t0"])
        assert asked == expected
        sync.made(1, ["t0", "t1"])
        assert asked == expected


def test_buckets_keep_the_order_of_units() -> None:
    holders = (Holder(0, 0, frozenset({0}), Placement(TensorLayout.replicated((4,), 1), (RankId("a", 0),))),)
    tensors = [Holding(f"t{unit}", unit, holders, 0) for unit in (0, 0, 1, 2)]
    found = [[holding.unit for holding in bucket] for bucket in in_buckets(tensors[::-1], 17)]
    assert found == [[2, 1], [0, 0]]


def test_an_owner_owes_others_what_they_have_copies_of() -> None:
    me, other = RankId("a", 0), RankId("a", 1)
    mine, theirs = (
        Holder(p, 0, frozenset({0}), Placement(TensorLayout.replicated((4,), 1), (rank,)))
        for p, rank in enumerate((me, other))
    )
    copies = [(mine,), (mine, theirs), (mine,)]
    tensors = [Holding(f"t{unit}", unit, holders, 0) for unit, holders in enumerate(copies)]
    wires, values = Wires(), {t.name: torch.zeros(4) for t in tensors}
    owner, copy = (
        ParameterReturn(wires.seen_by(one), wires.shared_by(one, tensors), tensors, 1, values, {"a": torch.float32})
        for one in (me, other)
    )
    assert (owner.owed, copy.owed) == (1, -1)
