"""What is believed of an action that was timed again and again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from statistics import mean, stdev

import pytest

from backends.backend import Stopwatch
from hetero.engine.repeats import Repeats, repeat, spread


class Took(Stopwatch):
    def __init__(self, seconds: float, overrun: bool = False) -> None:
        self._seconds, self.overrun = seconds, overrun

    def paused(self, part: float) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> None: ...

    def seconds(self) -> float:
        return self._seconds


def repeated(*watches: Took) -> list[Repeats] | None:
    """What is made of them, of which the first only warms up."""
    left: list[Sequence[Stopwatch]] = [(watch,) for watch in watches]
    return repeat(lambda: left.pop(0), len(watches) - 1)


def test_what_came_between_does_not_count() -> None:
    assert Repeats((1.0, 1.2, 900.0)).middle == 1.2
    assert Repeats((1.0, 1.0, 1.0, 1.0, 7.0)).middle == 1.0
    assert Repeats((2.0, 4.0)).middle == 3.0


def test_the_first_warms_up() -> None:
    assert repeated(Took(9.0), Took(1.0), Took(3.0)) == [Repeats((1.0, 3.0))]


def test_what_no_emulated_chip_could_keep_is_left_out_and_most_of_it_is_nothing() -> None:
    late = Took(5.0, overrun=True)
    assert repeated(Took(1.0), late, Took(1.0), Took(1.0)) == [Repeats((1.0, 1.0))]
    assert repeated(Took(1.0), late, Took(1.0)) is None


def test_the_spread_is_a_standard_deviation_over_all_actions() -> None:
    drawn = random.Random(0)
    factors = [[drawn.gauss(1.0, 0.05) for _ in range(400)] for _ in range(2)]
    actions = [Repeats(tuple(scale * factor for factor in each)) for scale, each in zip((1, 30), factors, strict=True)]
    assert spread(actions) == pytest.approx(stdev([*factors[0], *factors[1]]), rel=0.1)
    assert spread([Repeats((1.0,))]) == 0


@pytest.mark.parametrize("count", [5, 8, 32])
def test_of_few_repeats_the_spread_is_as_large_as_of_many(count: int) -> None:
    drawn = random.Random(0)
    found = [
        spread([Repeats(tuple(drawn.gauss(1.0, 0.05) for _ in range(count))) for _ in range(2)]) for _ in range(400)
    ]
    assert mean(found) == pytest.approx(0.05, rel=0.06)


def test_what_takes_no_time_does_not_differ() -> None:
    assert spread([Repeats((0.0, 0.0))]) == 0
