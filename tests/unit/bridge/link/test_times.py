"""LinkPace and clock: what an emulated link and a foreign clock do to times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.link.clock import PeerClock
from bridge.link.pace import LinkPace


def test_a_message_occupies_the_link_and_arrives_after_the_delay() -> None:
    pace = LinkPace(1000.0, 0.5)
    assert [pace.arrival(100, 10.0), pace.arrival(100, 10.0)] == pytest.approx([10.6, 10.7])
    assert pace.arrival(100, 20.0) == pytest.approx(20.6)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 100)), min_size=1))
def test_the_order_is_kept_and_the_rate_never_exceeded(frames: list[tuple[int, float]]) -> None:
    pace, now, arrivals = LinkPace(1e6, 0.01), 0.0, []
    for nbytes, gap in frames:
        now += gap
        arrivals.append(pace.arrival(nbytes, now))
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] >= sum(nbytes for nbytes, _ in frames) / 1e6


@given(ahead=st.integers(-(10**12), 10**12), there=st.integers(0, 10**6), back=st.integers(0, 10**6))
def test_a_foreign_clock_is_known_to_within_a_round_trip(ahead: int, there: int, back: int) -> None:
    clock = PeerClock()
    clock.sample(0, there + ahead, there + ahead, there + back)
    assert abs(clock.ahead_ns - ahead) <= 1.5 * (there + back) + 1


def test_the_fastest_exchange_counts() -> None:
    clock = PeerClock()
    clock.sample(0, 1_000_500, 1_000_500, 1000)
    clock.sample(0, 1_500_000, 1_500_000, 600_000)
    assert clock.ahead_ns == 1_000_000
    assert clock.elapsed_s(sent_ns=1_000_000, arrived_ns=2_000_000) == pytest.approx(0.002)
    assert clock.elapsed_s(sent_ns=9_000_000, arrived_ns=2_000_000) == 0.0
