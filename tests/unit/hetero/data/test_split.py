"""What is held out is never trained on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.data.errors import DataError
from hetero.data.order import SampleOrder
from hetero.data.split import HeldOut, Training, check_split


@given(n=st.integers(2, 200), seed=st.integers(0, 2**32), epoch=st.integers(0, 3), data=st.data())
def test_an_epoch_is_everything_but_what_is_held_out(n: int, seed: int, epoch: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, n - 1))
    held_out = [HeldOut(n, count).index(position) for position in range(count)]
    training = Training(seed, n, count)
    trained = [training.index(epoch * (n - count) + position) for position in range(n - count)]
    assert sorted(held_out + trained) == list(range(n))


def test_more_batches_hold_out_the_same_sequences_and_more() -> None:
    few, many = ({HeldOut(1000, count).index(position) for position in range(count)} for count in (32, 64))
    assert few < many


def test_what_is_held_out_comes_from_all_over_the_text() -> None:
    held_out = [HeldOut(10_000, 100).index(position) for position in range(100)]
    assert min(held_out) < 1000
    assert max(held_out) > 9000


def test_without_a_tail_the_order_is_the_seeded_one() -> None:
    assert [Training(7, 10, 0).index(i) for i in range(25)] == [SampleOrder(7, 10).index(i) for i in range(25)]


def test_beyond_the_tail_there_is_nothing() -> None:
    with pytest.raises(IndexError):
        HeldOut(10, 4).index(4)


@pytest.mark.parametrize(("n", "batches", "remedy"), [(40, 4, "use 3 or less"), (10, 1, "smaller train.global_batch")])
def test_something_is_left_to_train_on(n: int, batches: int, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        check_split(n, 10, batches)
    assert (caught.value.key, caught.value.value) == ("eval.batches", batches)
    assert remedy in caught.value.remedy


def test_enough_text_is_fine() -> None:
    check_split(41, 10, 4)
    check_split(5, 10, 0)
