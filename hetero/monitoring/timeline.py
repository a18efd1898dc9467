"""The last traced step of a `trace.json`, which may be large, still growing, or cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.foreign import open_plain, parse_json

HEAD_BYTES = 1 << 20
TAIL_BYTES = 4 << 20

_Row = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """What a rank did, such as `F 0.3` or `wait sync`. `start_s` counts from the step's first span."""

    name: str
    start_s: float
    seconds: float

    @property
    def kind(self) -> str:
        """F, B, I, W, SYNC, STEP or wait."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class Timeline:
    """`ranks` maps titles such as `nvidia:0 on nvidia@0` to what that rank did. Hosts have clocks of their own."""

    step: int
    ranks: Mapping[str, tuple[Span, ...]]


def last_timeline(path: Path) -> Timeline | None:
    """None where nothing was traced. Of a long trace only the end is read; should one step be longer than `TAIL_BYTES`,
    that is the ranks written last."""
    try:
        events = list(_events(path))
    except OSError:
        return None
    titles = {_row(event): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    steps: dict[int, dict[_Row, list[dict[str, Any]]]] = {}
    for event in events:
        if event["ph"] == "X":
            steps.setdefault(event["args"]["step"], {}).setdefault(_row(event), []).append(event)
    if not steps:
        return None
    # Of the newest step some hosts may not have told yet.
    step = max(list(steps)[-2:], key=lambda number: (len(steps[number]), number))
    return Timeline(step, dict(_ranks(steps[step], titles)))


def _ranks(
    rows: Mapping[_Row, list[dict[str, Any]]], titles: Mapping[_Row, str]
) -> Iterator[tuple[str, tuple[Span, ...]]]:
    first = min(event["ts"] for events in rows.values() for event in events)
    for row in sorted(rows):
        spans = (Span(event["name"], (event["ts"] - first) / 1e6, event["dur"] / 1e6) for event in rows[row])
        yield titles.get(row, f"{row[0]}:{row[1]}"), tuple(spans)


def _row(event: Mapping[str, Any]) -> _Row:
    return event["pid"], event["tid"]


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of the file's head (where the rows get their names) and tail, one a line as `Trace` writes them."""
    with open_plain(path) as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(len(head), size - TAIL_BYTES))
        is_whole = file.tell() == len(head)
        tail = file.read()
    if is_whole:
        yield from _parsed((head + tail).splitlines())
    else:
        yield from (event for event in _parsed(head.splitlines()) if event.get("ph") == "M")
        yield from _parsed(tail.splitlines())


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = parse_json(line.strip().rstrip(b","))
        except ValueError:
            continue
        if _is_event(event):
            yield event


def _is_event(event: Any) -> bool:
    """Whether it is one as `Trace` writes them, a span or something of a row."""
    if not (isinstance(event, dict) and isinstance(event.get("name"), str) and isinstance(event.get("args"), dict)):
        return False
    if not all(isinstance(event.get(key), int) for key in ("pid", "tid")):
        return False
    titled = event["name"] != "thread_name" or isinstance(event["args"].get("name"), str)
    if event.get("ph") == "X":
        times = event.get("ts"), event.get("dur"), event["args"].get("step")
        return titled and all(isinstance(time, (int, float)) for time in times) and isinstance(times[2], int)
    return titled and event.get("ph") == "M"
