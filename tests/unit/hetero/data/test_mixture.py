"""Several sources by weight."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.data.errors import DataError
from hetero.data.mixture import MixedHeldOut, MixedTraining, Turns, check_splits
from hetero.data.split import Training

WEIGHTS = st.lists(st.sampled_from([0.1, 0.5, 1, 2, 3.7, 100]), min_size=1, max_size=5)


@given(weights=WEIGHTS, n=st.integers(0, 300))
def test_turns_are_numbered_without_a_gap_and_follow_the_weights(weights: list[float], n: int) -> None:
    turns, seen = Turns(weights), Counter[int]()
    for position in range(n):
        source, before = turns.at(position)
        assert before == seen[source]
        seen[source] += 1
    assert turns.counts(n) == [seen[source] for source in range(len(weights))]
    for source, weight in enumerate(weights):
        assert abs(seen[source] - n * weight / sum(weights)) <= len(weights)


def test_far_turns_need_no_counting() -> None:
    turns = Turns([1, 2, 3])
    source, before = turns.at(10**15)
    assert turns.counts(10**15)[source] == before


@given(weights=WEIGHTS, held_out=st.integers(0, 20), seed=st.integers(0, 9))
def test_what_is_held_out_is_never_trained_on(weights: list[float], held_out: int, seed: int) -> None:
    sizes = [25 + 3 * number for number in range(len(weights))]
    apart, trained = MixedHeldOut(sizes, weights, held_out), MixedTraining(sizes, weights, seed, held_out)
    kept = {apart.index(position) for position in range(held_out)}
    assert len(kept) == held_out
    assert not kept & {trained.index(position) for position in range(100)}


def test_one_source_is_walked_as_ever() -> None:
    mixed, plain = MixedTraining([10], [3.0], 7, 2), Training(7, 10, 2)
    assert [mixed.index(i) for i in range(30)] == [plain.index(i) for i in range(30)]


def test_a_source_of_which_nothing_is_left() -> None:
    check_splits([10, 5], [1, 1], 2, 4)
    with pytest.raises(DataError, match=r"5 sequences of data.source\[1\] are held out, and it has 5"):
        check_splits([10, 5], [1, 1], 2, 5)
