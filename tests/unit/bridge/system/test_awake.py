"""A clock that counts only what somebody was there to see."""

from __future__ import annotations

from bridge.system.awake import AwakeClock


class Hand:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.at = 1e6

    def __call__(self) -> float:
        return self.at


def test_time_passes_as_long_as_it_is_read() -> None:
    hand = Hand()
    clock = AwakeClock(longest_s=1.0, source=hand)
    assert clock.now() == 0.0
    for _ in range(90):
        hand.at += 0.5
        clock.now()
    assert clock.now() == 45.0


def test_a_time_away_counts_as_a_short_one() -> None:
    hand = Hand()
    clock = AwakeClock(longest_s=1.0, source=hand)
    hand.at += 45.0
    assert clock.now() == 1.0
    assert clock.now() == 1.0, "once"
    hand.at += 0.25
    assert clock.now() == 1.25


def test_a_machine_that_slept_has_seen_nothing() -> None:
    """CLOCK_MONOTONIC stands still meanwhile."""
    clock = AwakeClock(source=Hand())
    assert clock.now() == clock.now() == 0.0
