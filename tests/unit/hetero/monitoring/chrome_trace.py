"""A strict reader of Chrome's trace format, of the part that `trace.json` uses: complete events and metadata.

What it asks for is what the format's description demands ("Trace Event Format", JSON array) and what viewers that are
stricter than that drop in silence: slices of one row that overlap without one lying in the other, rows without a name,
and the numbers that they keep for the idle row and a group's main thread. Times are whole microseconds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

NAMES = {"process_name", "thread_name"}
PLACES = {"process_sort_index", "thread_sort_index"}
KEYS = {"M": {"ph", "name", "pid", "tid", "args"}, "X": {"ph", "name", "pid", "tid", "args", "ts", "dur"}}


@dataclass(frozen=True)
class Slice:
    """What a row did: microseconds since the epoch of its clock."""

    name: str
    ts: float
    dur: float
    args: dict[str, Any]


def read_trace(text: str, *, is_closed: bool = True) -> dict[tuple[str, str], list[Slice]]:
    """The slices of every row by (name of its group, name of the row). Raises AssertionError at what is not allowed."""
    events = json.loads(text if is_closed else f"{text.rstrip()}]")
    assert isinstance(events, list)
    for event in events:
        _check(event)
    groups, rows = _names(events, "process_name"), _names(events, "thread_name")
    slices: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for event in (event for event in events if event["ph"] == "X"):
        slices[event["pid"], event["tid"]].append(Slice(event["name"], event["ts"], event["dur"], event["args"]))
    assert set(slices) == set(rows), "a row without slices, or slices in a row without a name"
    titles = {row: (groups[row[0], None], rows[row]) for row in rows}
    assert len(set(titles.values())) == len(titles), "two rows have one name"
    for found in slices.values():
        _check_row(found)
    return {titles[row]: found for row, found in slices.items()}


def _check(event: Any) -> None:
    assert isinstance(event, dict)
    assert set(event) == KEYS[event["ph"]], event
    assert isinstance(event["name"], str)
    assert event["name"]
    assert isinstance(event["args"], dict)
    assert all(_is_whole(event[key], 1, 1 << 31) for key in ("pid", "tid")), event
    assert event["pid"] != event["tid"], event
    if event["ph"] == "X":
        assert all(_is_whole(event[key], 0, 1 << 53) for key in ("ts", "dur")), event
    elif event["name"] in NAMES:
        assert isinstance(event["args"]["name"], str)
    else:
        assert event["name"] in PLACES
        assert type(event["args"]["sort_index"]) is int


def _is_whole(value: Any, least: int, limit: int) -> bool:
    return type(value) is int and least <= value < limit


def _names(events: list[dict[str, Any]], kind: str) -> dict[tuple[int, int | None], str]:
    """By group and row, or by group alone; each is named once, before it is used."""
    names: dict[tuple[int, int | None], str] = {}
    for event in events:
        key = event["pid"], event["tid"] if kind == "thread_name" else None
        if event["name"] == kind:
            assert key not in names, f"{key} has two names"
            names[key] = event["args"]["name"]
        elif event["ph"] == "X":
            assert key in names, f"{key} was used before it was named"
    return names


def _check_row(slices: list[Slice]) -> None:
    ends: list[float] = []
    for one in sorted(slices, key=lambda one: (one.ts, -one.dur)):
        while ends and ends[-1] <= one.ts:
            ends.pop()
        assert not ends or one.ts + one.dur <= ends[-1], f"{one} reaches out of the slice around it"
        ends.append(one.ts + one.dur)
