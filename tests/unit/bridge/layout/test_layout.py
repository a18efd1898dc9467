from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.layout.layout import LayoutError, Shape, TensorLayout
from bridge.rank import RankId
from tests.unit.bridge.layout.layouts import layouts


def test_a_rank_reads_back_from_its_text() -> None:
    assert str(RankId("nvidia", 12)) == "nvidia:12"
    assert RankId.parse("nvidia:12") == RankId("nvidia", 12)
    assert RankId.parse("a:b:3") == RankId("a:b", 3)


@pytest.mark.parametrize("text", ["", "nvidia", "nvidia:", ":1", "nvidia:-1", "nvidia:one"])
def test_what_is_no_rank_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pool:index"):
        RankId.parse(text)


def test_replicated_holds_the_whole_everywhere() -> None:
    layout = TensorLayout.replicated((4, 6), 3)
    assert [layout.local_shape(position) for position in range(layout.size)] == [(4, 6)] * 3
    assert layout.replica_groups() == ((0, 1, 2),)


def test_replicas_whose_gradients_are_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(LayoutError, match="replicas are equal or summed"):
        TensorLayout.replicated((4, 6), 3, "averaged")  # type: ignore[arg-type]


def test_an_uneven_split_gives_the_first_positions_one_more() -> None:
    layout = TensorLayout.split((10, 3), 0, 4)
    assert [region[0] for region in layout.regions] == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert layout.local_shape(0) == (3, 3)
    assert layout.region(3) == ((8, 10), (0, 3))
    assert layout.replica_groups() == ((0,), (1,), (2,), (3,))


def test_heads_split_between_heads() -> None:
    layout = TensorLayout.split_heads((16, 5), 0, heads=4, size=2, head_dim=4)
    assert layout == TensorLayout((16, 5), (((0, 8), (0, 5)), ((8, 16), (0, 5))), "equal")


def test_too_few_heads_are_replicated_and_their_gradients_summed() -> None:
    layout = TensorLayout.split_heads((8, 5), 0, heads=2, size=4, head_dim=4)
    assert layout == TensorLayout.cut((8, 5), 0, ((0, 4), (0, 4), (4, 8), (4, 8)), "summed")
    assert layout.replica_groups() == ((0, 1), (2, 3))


@pytest.mark.parametrize(("heads", "size"), [(6, 4), (2, 3), (4, 6)])
def test_heads_that_tp_does_not_divide_are_an_error_that_names_the_legal_ones(heads: int, size: int) -> None:
    with pytest.raises(LayoutError) as error:
        TensorLayout.split_heads((heads * 4,), 0, heads, size, 4)
    assert (error.value.key, error.value.value) == ("tp", size)
    assert f"1, 2, {heads}"[-len(str(heads)) :] in error.value.remedy


def test_a_position_may_hold_nothing() -> None:
    layout = TensorLayout((4, 6), (None, ((0, 4), (0, 6)), None))
    assert (layout.size, layout.replica_groups()) == (3, ((1,),))
    for ask in (layout.region, layout.local_shape):
        with pytest.raises(LayoutError, match="position = 2; it holds nothing of a tensor of shape"):
            ask(2)


def test_parts_may_be_cut_in_several_dimensions() -> None:
    """One tall part on two positions, and two beside it."""
    tall, low, high = ((0, 4), (0, 2)), ((0, 1), (2, 6)), ((1, 4), (2, 6))
    layout = TensorLayout((4, 6), (high, tall, low, tall))
    assert layout.replica_groups() == ((2,), (1, 3), (0,))
    assert [layout.local_shape(position) for position in range(4)] == [(3, 4), (4, 2), (1, 4), (4, 2)]


NOBODY, OVERLAP, OUTSIDE, RANGES = "held by nobody", "overlap and are not equal", "does not lie within", "ranges, the"


@pytest.mark.parametrize(
    ("shape", "regions", "rule"),
    [
        ((4,), (), NOBODY),
        ((4,), (None, None), NOBODY),
        ((), (None,), NOBODY),
        ((4,), (((0, 2),),), "2 of 4 elements are held by nobody"),
        ((4,), (((0, 2),), ((3, 4),)), "1 of 4 elements are held by nobody"),
        ((4, 4), (((0, 2), (0, 4)), ((2, 4), (0, 3)), None), "2 of 16 elements are held by nobody"),
        ((4,), (((0, 3),), ((2, 4),)), OVERLAP),
        ((4,), (((0, 4),), ((0, 2),), ((2, 4),)), OVERLAP),
        ((4, 4), (((0, 2), (0, 4)), ((0, 4), (0, 2))), OVERLAP),
        ((4,), (((0, 2),), ((2, 2),), ((2, 4),)), OUTSIDE),
        ((4,), (((0, 5),),), OUTSIDE),
        ((4,), (((-1, 4),),), OUTSIDE),
        ((4,), (((0, 4), (0, 1)),), RANGES),
        ((4, 4), (((0, 4),),), RANGES),
        ((4, 0), (((0, 4), (0, 0)),), "at least one element"),
    ],
)
def test_parts_that_do_not_tile_the_tensor_are_refused(shape: Shape, regions: Any, rule: str) -> None:
    with pytest.raises(LayoutError, match=rule) as error:
        TensorLayout(shape, regions)
    assert error.value.key in ("regions", "shape")
    assert error.value.value in (regions, shape)
    assert error.value.remedy


def test_replicas_that_share_a_gradient_are_as_many_of_each_part() -> None:
    """Of two shares of one part and one of another, nobody could tell how often a sum must be taken."""
    halves = ((0, 2), (0, 2), (2, 4))
    assert TensorLayout.cut((4,), 0, halves).replica_groups() == ((0, 1), (2,))
    with pytest.raises(LayoutError, match="as many of one part as of any other"):
        TensorLayout.cut((4,), 0, halves, "summed")


@given(st.lists(st.integers(1, 5), max_size=3).flatmap(lambda shape: layouts(tuple(shape))))
def test_the_first_of_each_group_together_hold_each_element_once(layout: TensorLayout) -> None:
    held = np.zeros(layout.shape, dtype=int)
    for group in layout.replica_groups():
        held[tuple(slice(*bounds) for bounds in layout.region(group[0]))] += 1
        assert len({layout.region(position) for position in group}) == 1
    assert (held == 1).all()


def test_more_parts_than_elements_are_refused() -> None:
    with pytest.raises(LayoutError, match="too few for 5"):
        TensorLayout.split((4,), 0, 5)
    with pytest.raises(LayoutError, match="from 0"):
        TensorLayout.split((4,), 1, 2)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4))
def test_every_query_head_finds_its_key_head_on_its_own_position(kv_heads: int, ratio: int, head_dim: int) -> None:
    heads = kv_heads * ratio
    for size in (n for n in range(1, heads + 1) if heads % n == 0):
        queries = TensorLayout.split_heads((heads * head_dim,), 0, heads, size, head_dim)
        if kv_heads % size and size % kv_heads:
            continue
        keys = TensorLayout.split_heads((kv_heads * head_dim,), 0, kv_heads, size, head_dim)
        for position in range(size):
            ((first, last),), ((start, stop),) = queries.region(position), keys.region(position)
            needed = {head // ratio for head in range(first // head_dim, last // head_dim)}
            assert needed == set(range(start // head_dim, stop // head_dim))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=5), st.randoms())
def test_replica_groups_are_the_positions_of_each_part(parts: list[tuple[int, int]], random: Random) -> None:
    stops = list(accumulate(extent for extent, _ in parts))
    bounds = [(stop - extent, stop) for stop, (extent, copies) in zip(stops, parts, strict=True) for _ in range(copies)]
    random.shuffle(bounds)
    groups = TensorLayout.cut((stops[-1],), 0, bounds).replica_groups()
    assert [[bounds[position] for position in group] for group in groups] == [
        [(stop - extent, stop)] * copies for stop, (extent, copies) in zip(stops, parts, strict=True)
    ]
