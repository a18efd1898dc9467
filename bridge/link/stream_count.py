"""How many connections side by side fill a link, which holds each of them to its buffer per round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from bridge.words.endpoint import MOST_STREAMS, LinkProbed

_BUFFER_BYTES = 2 << 20  # under way on one stream: half of what Linux lets a sender buffer
_SUSPECT = 0.5  # a stream with so much of a buffer under way may be held by it
_TRIES = 2
_GAIN = 1.1  # twice as many streams are worth their while if the rate grows by as much

Found = Sequence[LinkProbed]
"""Of both directions of a link."""


def streams_to_fill(bytes_per_s: float, rtt_s: float) -> int:
    """For a link of which rate and round trip are known: what is under way on it, by what is on one stream."""
    return min(MOST_STREAMS, max(1, ceil(bytes_per_s * rtt_s / _BUFFER_BYTES)))


def find_streams(measure: Callable[[int], Found]) -> tuple[int, Found]:
    """For a link of which nothing is known: as many as still make it faster, and what was measured with them.

    `measure` gives both directions with so many streams. Where half a buffer is never under way, as mostly within a
    room, one measurement is all. Twice as many must fail twice, lest one bad moment decides.
    """
    streams, found = 1, measure(1)
    while 2 * streams <= MOST_STREAMS and _may_be_held(found, streams):
        tries = (measure(2 * streams) for _ in range(_TRIES))
        wider = next((wider for wider in tries if _slower(wider) >= _GAIN * _slower(found)), None)
        if wider is None:
            break
        streams, found = 2 * streams, wider
    return streams, found


def _may_be_held(found: Found, streams: int) -> bool:
    under_way = (one.bytes_per_s * (one.rtt_s or 0.0) / streams for one in found)
    return max(under_way) > _SUSPECT * _BUFFER_BYTES


def _slower(found: Found) -> float:
    return min(one.bytes_per_s for one in found)
