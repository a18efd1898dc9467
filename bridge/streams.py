"""How many connections side by side fill a link, which holds each of them to its buffer per round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

MOST_STREAMS = 16
_BUFFER_BYTES = 2 << 20  # under way on one stream: half of what Linux lets a sender buffer
_SUSPECT = 0.5  # a stream with so much of a buffer under way may be held by it
_TRIES = 2
_GAIN = 1.1  # twice as many streams are worth their while if the rate grows by as much

Row = Mapping[str, Any]
"""What `Probe` has found of one direction."""


def streams_to_fill(bytes_per_s: float, rtt_s: float) -> int:
    """For a link of which rate and round trip are known: what is under way on it, by what is on one stream."""
    return min(MOST_STREAMS, max(1, ceil(bytes_per_s * rtt_s / _BUFFER_BYTES)))


def find_streams(measure: Callable[[int], Sequence[Row]]) -> tuple[int, Sequence[Row]]:
    """For a link of which nothing is known: as many as still make it faster, and what was measured with them.

    `measure` gives both directions with so many streams. Where half a buffer is never under way, as mostly within a
    room, one measurement is all. Twice as many must fail twice, lest one bad moment decides.
    """
    streams, rows = 1, measure(1)
    while 2 * streams <= MOST_STREAMS and _may_be_held(rows, streams):
        tries = (measure(2 * streams) for _ in range(_TRIES))
        wider = next((wider for wider in tries if _slower(wider) >= _GAIN * _slower(rows)), None)
        if wider is None:
            break
        streams, rows = 2 * streams, wider
    return streams, rows


def _may_be_held(rows: Sequence[Row], streams: int) -> bool:
    under_way = (row["bytes_per_s"] * (row["rtt_s"] or 0.0) / streams for row in rows)
    return bool(max(under_way) > _SUSPECT * _BUFFER_BYTES)


def _slower(rows: Sequence[Row]) -> float:
    return float(min(row["bytes_per_s"] for row in rows))
