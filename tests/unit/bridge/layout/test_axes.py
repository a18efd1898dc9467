"""Positions and coordinates along axes are told from each other as the elements of an array are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.layout.axes import Axes
from bridge.layout.layout import LayoutError, TensorLayout

axes = st.dictionaries(st.sampled_from(["cp", "ep", "tp"]), st.integers(1, 4), min_size=1).map(
    lambda extents: Axes(tuple(extents.items()))
)


def numbers(found: Axes) -> np.ndarray:
    return np.arange(found.size).reshape([extent for _, extent in found.extents])


@given(axes)
def test_a_position_has_coordinates_and_these_the_position(found: Axes) -> None:
    for at, position in np.ndenumerate(numbers(found)):
        named = dict(zip((axis for axis, _ in found.extents), at, strict=True))
        assert found.coordinates(int(position)) == named
        assert found.position(named) == position


@given(axes)
def test_groups_along_an_axis_are_the_rows_of_an_array(found: Axes) -> None:
    for dim, (axis, extent) in enumerate(found.extents):
        rows = np.moveaxis(numbers(found), dim, -1).reshape(-1, extent).tolist()
        assert sorted(found.groups(axis)) == sorted(map(tuple, rows))
        for row in rows:
            assert all(found.group(position, axis) == tuple(row) for position in row)


def test_what_is_cut_along_one_axis_is_the_same_along_the_others() -> None:
    layout = TensorLayout.split((6, 2), 0, 2)
    first, second = layout.regions
    assert Axes.of(tp=2).spread(layout, "tp") == layout
    assert Axes.of(cp=2, tp=2).spread(layout, "tp").regions == (first, second, first, second)
    assert Axes.of(tp=2, ep=2).spread(layout, "tp").regions == (first, first, second, second)


def test_what_a_stage_does_not_have_is_refused() -> None:
    stage = Axes.of(tp=2)
    with pytest.raises(LayoutError, match="axis = cp; the ranks of a stage lie along tp; name one of its axes"):
        stage.extent("cp")
    with pytest.raises(LayoutError, match="position = 2; the stage has 2 ranks"):
        stage.coordinates(2)
    with pytest.raises(LayoutError, match="tp = 2; the layout has 3 positions"):
        stage.spread(TensorLayout.split((6,), 0, 3), "tp")
