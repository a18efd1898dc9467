"""Plans are carried out on numpy arrays and judged by what arrives."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.layout.layout import LayoutError, Region, Shape, TensorLayout, overlap
from bridge.layout.reshard import Box, Piece, Placement, copies, relocate, reshard
from bridge.rank import RankId
from tests.examples import out_of_100
from tests.unit.bridge.layout.layouts import layouts

RANKS = tuple(RankId(pool, index) for pool in ("nvidia", "ascend") for index in range(6))

shapes = st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple)


@st.composite
def placements(draw: st.DrawFn, shape: Shape) -> Placement:
    layout = draw(layouts(shape))
    ranks = draw(st.permutations(RANKS))[: layout.size]
    return Placement(layout, tuple(ranks))


moves = shapes.flatmap(lambda shape: st.tuples(placements(shape), placements(shape)))


def cut(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in region)


def shards(placement: Placement) -> dict[RankId, np.ndarray]:
    whole = np.arange(prod(placement.layout.shape)).reshape(placement.layout.shape)
    return {rank: whole[cut(region)].copy() for rank, region in placement.regions.items()}


def empty(placement: Placement, value: int) -> dict[RankId, np.ndarray]:
    return {rank: np.full_like(shard, value) for rank, shard in shards(placement).items()}


def carry(pieces: tuple[Piece, ...], source: Placement, target: Placement) -> dict[RankId, np.ndarray]:
    sent, received = shards(source), empty(target, -1)
    for piece in pieces:
        data = sent[piece.source][cut(piece.source_slices)]
        assert data.shape == piece.shape
        assert data.size == piece.numel > 0
        received[piece.target][cut(piece.target_slices)] = data
    return received


def arrivals(pieces: tuple[Piece, ...], target: Placement) -> dict[RankId, np.ndarray]:
    """How often each element of each target's shard arrived."""
    counts = empty(target, 0)
    for piece in pieces:
        counts[piece.target][cut(piece.target_slices)] += 1
    return counts


def assert_shards(received: dict[RankId, np.ndarray], target: Placement) -> None:
    for rank, shard in shards(target).items():
        np.testing.assert_array_equal(received[rank], shard)


@given(moves)
@out_of_100(200)
def test_every_target_ends_with_exactly_its_shard(move: tuple[Placement, Placement]) -> None:
    source, target = move
    plan = reshard(source, target)
    received = carry(plan.pieces, source, target)
    for gather in plan.gathers:
        parts = [received[rank][cut(part)].copy() for rank, part in zip(gather.ranks, gather.parts, strict=True)]
        for rank in gather.ranks:
            for part, data in zip(gather.parts, parts, strict=True):
                received[rank][cut(part)] = data
    assert_shards(received, target)


@pytest.mark.slow
@given(moves)
@out_of_100(200)
def test_each_byte_crosses_once_per_distinct_target_shard(move: tuple[Placement, Placement]) -> None:
    source, target = move
    plan = reshard(source, target)
    counts = arrivals(plan.pieces, target)
    gathered = [set(gather.ranks) for gather in plan.gathers]
    for group in target.layout.replica_groups():
        ranks = [target.ranks[position] for position in group]
        shape = target.layout.local_shape(group[0])
        if len(ranks) == 1 or set(ranks) in gathered:
            np.testing.assert_array_equal(sum(counts[rank] for rank in ranks), 1)
            continue
        crumb = all(extent < len(ranks) for extent in shape)
        held = all(piece.local for piece in plan.pieces if piece.target in ranks)
        assert crumb or held
        assert all((counts[rank] == 1).all() for rank in ranks)


@given(moves)
def test_copies_bring_each_target_its_whole_shard_once(move: tuple[Placement, Placement]) -> None:
    source, target = move
    pieces = copies(source, target)
    assert_shards(carry(pieces, source, target), target)
    assert all((count == 1).all() for count in arrivals(pieces, target).values())


@given(moves)
@out_of_100(200)
def test_replicas_share_the_sending_to_within_one_row(move: tuple[Placement, Placement]) -> None:
    source, target = move
    for pieces in (reshard(source, target).pieces, copies(source, target)):
        for group in source.layout.replica_groups():
            senders = [source.ranks[position] for position in group]
            crossing = [piece for piece in pieces if piece.source in senders and not piece.local]
            sent = [sum(piece.numel for piece in crossing if piece.source == sender) for sender in senders]
            assert max(sent) - sum(sent) / len(sent) <= largest_row(crossing, len(senders))


def largest_row(crossing: list[Piece], senders: int) -> float:
    """The coarsest grain of cutting: a box is cut along a dimension that is long enough, or its longest."""
    rows = [0.0]
    for target in {piece.target for piece in crossing}:
        boxes = np.array([piece.target_slices for piece in crossing if piece.target == target])
        hull = (boxes[..., 1].max(axis=0) - boxes[..., 0].min(axis=0)).tolist() if boxes.size else []
        rows.append(prod(hull) / min(senders, max(hull, default=1)))
    return max(rows)


@given(moves)
def test_what_a_rank_holds_does_not_cross(move: tuple[Placement, Placement]) -> None:
    source, target = move
    held, wanted = source.regions, target.regions
    for piece in copies(source, target):
        if piece.target in held and not piece.local:
            origin = [start for start, _ in wanted[piece.target]]
            box = tuple((a + o, b + o) for (a, b), o in zip(piece.target_slices, origin, strict=True))
            assert box
            assert overlap(held[piece.target], box) is None


def test_equal_groups_pair_up_and_halve_the_traffic_of_each() -> None:
    nvidia = Placement(TensorLayout.replicated((2, 8, 4), 2), (RankId("nvidia", 0), RankId("nvidia", 1)))
    ascend = Placement(TensorLayout.replicated((2, 8, 4), 2), (RankId("ascend", 0), RankId("ascend", 1)))
    plan = reshard(nvidia, ascend)
    assert [(str(piece.source), str(piece.target), piece.shape) for piece in plan.pieces] == [
        ("nvidia:0", "ascend:0", (1, 8, 4)),
        ("nvidia:1", "ascend:1", (1, 8, 4)),
    ]
    assert plan.gathers[0].parts == (((0, 1), (0, 8), (0, 4)), ((1, 2), (0, 8), (0, 4)))


def test_a_placement_needs_one_rank_per_position() -> None:
    layout = TensorLayout.replicated((4,), 2)
    for ranks in [(RankId("a", 0),), (RankId("a", 0), RankId("a", 0))]:
        with pytest.raises(LayoutError, match="as many different ranks"):
            Placement(layout, ranks)


def test_two_different_tensors_are_refused() -> None:
    one = Placement(TensorLayout.replicated((4,), 1), (RankId("a", 0),))
    other = Placement(TensorLayout.replicated((5,), 1), (RankId("a", 0),))
    for plan in (reshard, copies):
        with pytest.raises(LayoutError, match="one tensor"):
            plan(one, other)


@st.composite
def spreads(draw: st.DrawFn, shape: Shape) -> tuple[Box, ...]:
    """Up to three copies of a tensor, on ranks that hold one part each."""
    free, found = list(draw(st.permutations(RANKS))), []
    for _ in range(draw(st.integers(1, 3))):
        layout = draw(layouts(shape))
        if layout.size > len(free):
            break
        found += [Box(free.pop(), region) for region in layout.regions if region is not None]
    return tuple(found)


relocations = shapes.flatmap(lambda shape: st.tuples(st.just(shape), spreads(shape), spreads(shape), st.integers(0, 5)))


@given(relocations)
def test_all_who_want_a_part_get_it_in_two_rounds(move: tuple[Shape, tuple[Box, ...], tuple[Box, ...], int]) -> None:
    shape, held, wanted, turn = move
    whole = np.arange(prod(shape)).reshape(shape)
    had = {box.rank: whole[cut(box.region)] for box in held}
    new = {box.rank: np.full_like(whole[cut(box.region)], -1) for box in wanted}
    for pieces, source in zip(relocate(held, wanted, (), turn), (had, new), strict=True):
        came = [(piece, source[piece.source][cut(piece.source_slices)].copy()) for piece in pieces]
        for piece, data in came:
            assert (new[piece.target][cut(piece.target_slices)] == -1).all(), "it was there already"
            new[piece.target][cut(piece.target_slices)] = data
    for box in wanted:
        assert (new[box.rank] == whole[cut(box.region)]).all()


@given(relocations)
def test_what_a_pool_has_does_not_cross_and_what_it_lacks_crosses_once(
    move: tuple[Shape, tuple[Box, ...], tuple[Box, ...], int],
) -> None:
    shape, held, wanted, turn = move
    there = {pool: np.zeros(shape, dtype=int) for pool in ("nvidia", "ascend")}
    for box in held:
        there[box.rank.pool][cut(box.region)] = 1
    origins = {box.rank: [start for start, _ in box.region] for box in wanted}
    for pieces in relocate(held, wanted, (), turn):
        for piece in pieces:
            if piece.source.pool != piece.target.pool:
                zero = origins[piece.target]
                box = tuple(slice(z + a, z + b) for z, (a, b) in zip(zero, piece.target_slices, strict=True))
                there[piece.target.pool][box] += 1
    assert all((count <= 1).all() for count in there.values())


@given(relocations)
def test_nothing_moves_where_all_is_as_it_was(move: tuple[Shape, tuple[Box, ...], tuple[Box, ...], int]) -> None:
    _, held, _, turn = move
    first, second = relocate(held, held, (), turn)
    assert all(piece.local for piece in first)
    assert second == ()


def test_what_a_rank_makes_is_sent_to_its_pool_in_the_second_round() -> None:
    there, maker, other = RankId("ascend", 0), RankId("nvidia", 0), RankId("nvidia", 1)
    whole = ((0, 4),)
    first, second = relocate((Box(there, whole),), (Box(other, whole),), (Box(maker, whole),))
    assert first == ()
    assert [(piece.source, piece.target) for piece in second] == [(maker, other)]


def test_senders_that_are_alike_take_turns() -> None:
    held = tuple(Box(RankId("ascend", index), ((0, 4),)) for index in range(4))
    wanted = (Box(RankId("nvidia", 0), ((0, 4),)),)
    assert {relocate(held, wanted, (), turn)[0][0].source for turn in range(4)} == {box.rank for box in held}


def test_what_nobody_holds_cannot_be_had() -> None:
    with pytest.raises(LayoutError, match="no rank holds"):
        relocate((Box(RANKS[0], ((0, 2),)),), (Box(RANKS[1], ((1, 3),)),))
