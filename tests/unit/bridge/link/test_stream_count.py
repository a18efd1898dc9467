"""How many streams fill a link, found on links that are nothing but a rate, a round trip and a buffer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bridge.link.stream_count import find_streams, streams_to_fill
from bridge.words.endpoint import MOST_STREAMS, LinkProbed


class Model:
    """A link that gives each stream at most `held` bytes/s, and counts what it is asked."""

    def __init__(self, bytes_per_s: float, held: float, rtt_s: float) -> None:
        self.bytes_per_s, self.held, self.rtt_s = bytes_per_s, held, rtt_s
        self.tried: list[int] = []

    def rate(self, streams: int) -> float:
        return min(self.bytes_per_s, streams * self.held)

    def measure(self, streams: int) -> list[LinkProbed]:
        self.tried.append(streams)
        return [LinkProbed("b@0", rate, self.rtt_s, 1.0) for rate in (self.rate(streams), 1e12)]


@given(st.floats(1e7, 1e11), st.floats(1e-5, 1.0), st.integers(1 << 20, 8 << 20))
def test_a_tenth_more_is_not_to_be_had(rate: float, rtt_s: float, buffer: int) -> None:
    link = Model(rate, buffer / rtt_s, rtt_s)
    streams, found = find_streams(link.measure)
    assert found[0].bytes_per_s == link.rate(streams)
    assert link.rate(MOST_STREAMS) <= 1.1 * link.rate(streams) or streams == MOST_STREAMS
    assert streams == 1 or link.rate(streams) > link.rate(streams // 2)


def test_within_a_room_one_look_is_all() -> None:
    link = Model(3e9, 1e11, 1e-4)
    assert find_streams(lambda streams: link.measure(streams)[:1])[0] == 1
    assert link.tried == [1]


def test_a_round_trip_that_nobody_saw_hides_nothing() -> None:
    assert find_streams(lambda streams: [LinkProbed("b@0", 1e9, None, 1.0)])[0] == 1


def test_what_is_known_is_reckoned() -> None:
    assert streams_to_fill(10e9 / 8, 10e-3) == 6
    assert streams_to_fill(10e9 / 8, 0.0) == 1
    assert streams_to_fill(10e9 / 8, 1.0) == MOST_STREAMS


def test_one_bad_moment_does_not_decide() -> None:
    link = Model(1e9, 1e8, 0.05)
    bad = iter([False, True])

    def measure(streams: int) -> list[LinkProbed]:
        found = link.measure(streams)
        return [replace(one, bytes_per_s=1e6) for one in found] if next(bad, False) else found

    assert find_streams(measure)[0] == 16
    assert link.tried == [1, 2, 2, 4, 8, 16]
