"""Cuts and shares against brute force."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.search.cut import StageCost, cut
from balancer.search.shares import shares
from tests.unit.balancer.cases import SECONDS


@st.composite
def cut_cases(draw):
    stages, n = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    rows = st.lists(st.one_of(st.just(0.0), SECONDS), min_size=n, max_size=n)
    needs = st.lists(st.integers(0, 5), min_size=n, max_size=n)
    costs = [StageCost.of_units(draw(rows), draw(needs), draw(st.sampled_from([3, 8, 20, 1e9]))) for _ in range(stages)]
    places = sorted({0, n, *draw(st.sets(st.integers(1, n)))})
    return costs, places


def slowest(costs, ranges):
    return max(cost.between(units) for cost, units in zip(costs, ranges, strict=True))


def brute_force(costs, places):
    found = []
    for inner in combinations(places[1:-1], len(costs) - 1):
        ranges = list(zip((places[0], *inner), (*inner, places[-1]), strict=True))
        if all(c.bytes[b] - c.bytes[a] <= c.limit_bytes for c, (a, b) in zip(costs, ranges, strict=True)):
            found.append(slowest(costs, ranges))
    return min(found, default=None)


@given(case=cut_cases())
def test_cuts_equal_brute_force(case):
    costs, places = case
    ranges, best = cut(costs, places), brute_force(costs, places)
    if ranges is None:
        assert best is None
        return
    assert slowest(costs, ranges) == pytest.approx(best, rel=1e-12)
    assert [a for a, _ in ranges] + [places[-1]] == [places[0]] + [b for _, b in ranges]
    for cost, (a, b) in zip(costs, ranges, strict=True):
        assert a < b
        assert {a, b} <= set(places)
        assert cost.bytes[b] - cost.bytes[a] <= cost.limit_bytes


@given(case=cut_cases(), part=st.sampled_from([0.5, 0.99, 1.0, 3.0]))
def test_cuts_up_to_a_time_are_the_same(case, part):
    costs, places = case
    best = brute_force(costs, places)
    ranges = cut(costs, places, part * (1.0 if best is None else best))
    if best is None or best > part * best:
        assert ranges is None
    else:
        assert ranges is not None
        assert slowest(costs, ranges) == pytest.approx(best, rel=1e-12)


def test_a_longer_beginning_may_be_the_faster_one():
    """Each stage has a unit, so the best of the first i units may fall as i grows: 5, 20 and 1 for 2, 3, 4."""
    rows = [[0.1] * 5, [1.0, 5.0, 20.0, 1.0, 1.0], [1.0] * 5]
    assert cut([StageCost.of_units(row) for row in rows], range(6)) == ((0, 3), (3, 4), (4, 5))


@given(stages=st.integers(1, 6), each=st.integers(1, 8))
def test_equal_stages_get_equal_cuts(stages, each):
    costs = [StageCost.of_units([1.0] * (stages * each))] * stages
    assert {b - a for a, b in cut(costs, range(stages * each + 1))} == {each}


def test_what_is_left_over_is_spread():
    assert sorted(b - a for a, b in cut([StageCost.of_units([1.0] * 9)] * 4, range(10))) == [2, 2, 2, 3]


@given(data=st.data(), n=st.integers(1, 4), micro_batches=st.integers(1, 10))
def test_shares_equal_brute_force(data, n, micro_batches):
    fill = data.draw(st.lists(st.one_of(st.just(0.0), SECONDS), min_size=n, max_size=n))
    each = data.draw(st.lists(SECONDS, min_size=n, max_size=n))
    if micro_batches < n:
        with pytest.raises(ValueError, match="one each"):
            shares(fill, each, micro_batches)
        return

    def end(counts):
        return max(f + m * t for f, m, t in zip(fill, counts, each, strict=True))

    counts = shares(fill, each, micro_batches)
    every = (c for c in product(range(1, micro_batches + 1), repeat=n) if sum(c) == micro_batches)
    assert sum(counts) == micro_batches
    assert min(counts) >= 1
    assert end(counts) == pytest.approx(min(map(end, every)), rel=1e-12)


@given(n=st.integers(1, 8), each=st.integers(1, 200), seconds=SECONDS, fill=st.floats(0, 5))
def test_equal_pipelines_get_equal_shares(n, each, seconds, fill):
    assert shares([fill] * n, [seconds] * n, n * each) == (each,) * n
