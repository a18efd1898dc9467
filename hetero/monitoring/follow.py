"""Reads a run directory while the run writes it: each poll costs what was added since the last one.

What is held is bounded, however long the run: the `RECENT` newest lines of `metrics.jsonl` whole, and of all older ones
a thinned history for charts. Thinning takes every n-th step as it is, never a mean (n is a power of two that doubles
whenever `CHARTED` points are reached), so a chart of 100,000 steps shows true figures, though not each step's. Only
lines that are kept are parsed; of the others only the step is read.

A torn last line waits for its rest; lines that no run writes are counted and passed over. So is whatever else of the
directory is not what a run writes (`hetero.monitoring.shapes`): it may have come from anywhere. A step that comes a
second time (a resumed run) replaces what was read from that step on. A file that was replaced is read anew.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import yaml

from backends import core_schema
from balancer.plan.plan import Plan
from hetero.foreign import DEEPEST, LineSplitter, check_bounded, open_plain, parse_json, read_plain
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.journal import BLOCK_BYTES, EVENTS, METRICS, Record, parse
from hetero.monitoring.metrics_line import MetricsLine
from hetero.monitoring.shapes import EVENT, JOB, METRICS_LINE, fits

RECENT = 256
CHARTED = 2048
EVENTS_KEPT = 512
NAMES_KEPT = 4096
MOST_UNITS = 1 << 20
"""Kinds of events, and hosts."""
MOST_WHOLE_BYTES = 1 << 20
_EVALUATED, _NOT_EVALUATED = b'"eval_loss"', b'"eval_loss": null'
_SHADOWED = b'"shadow": {'
T = TypeVar("T")
_STEP = re.compile(rb'\{"step": ?(\d{1,12}),')


@dataclass(frozen=True, slots=True)
class Point:
    """One step on a chart; without an evaluation `eval_loss` is None. `capacity` and `pool_tokens_per_s` are tokens per
    second by pool."""

    step: int
    time: float
    loss: float | None
    eval_loss: float | None
    tokens_per_s: float
    step_s: float
    capacity: Mapping[str, float]
    pool_tokens_per_s: Mapping[str, float]

    @classmethod
    def of(cls, record: MetricsLine) -> Point:
        pools = record.get("pools") or {}
        return cls(
            step=record["step"],
            time=record.get("time") or 0.0,
            loss=record.get("loss"),
            eval_loss=record.get("eval_loss"),
            tokens_per_s=record.get("tokens_per_s") or 0.0,
            step_s=record.get("step_s") or 0.0,
            capacity={name: pool.get("capacity_tokens_per_s") or 0.0 for name, pool in pools.items()},
            pool_tokens_per_s={name: pool.get("tokens_per_s") or 0.0 for name, pool in pools.items()},
        )


class Follower:
    """What a run directory holds so far. The directory and its files may be missing, and come later."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.recent: deque[MetricsLine] = deque(maxlen=RECENT)
        self.events: deque[Record] = deque(maxlen=EVENTS_KEPT)
        self.last_of_kind: dict[str, Record] = {}
        self.hosts: dict[str, Record] = {}
        self.shadowed: MetricsLine | None = None
        """The newest line of a step of which some was computed again."""
        self.unreadable = 0
        self.restarts = 0
        self._history = _Thinned()
        self._evaluated = _Thinned()
        self._step = -1
        self._metrics = _Tail(run_dir / METRICS)
        self._events = _Tail(run_dir / EVENTS)
        self._job = _Whole[Record](run_dir / "job.yaml", _job, {})
        self._plan = _Whole[Plan | None](run_dir / "plan.json", _plan, None)

    def poll(self) -> bool:
        """Read what was added; True where that is anything."""
        news = [self._read_metrics(), self._read_events(), self._job.read(), self._plan.read()]
        return any(news)

    def snapshot(self) -> Follower:
        """What is known now, for another thread: polls of this one leave it as it is. It is not to be polled itself."""
        taken = copy(self)
        taken.recent, taken.events = copy(self.recent), copy(self.events)
        taken.last_of_kind, taken.hosts = copy(self.last_of_kind), copy(self.hosts)
        taken._history, taken._evaluated = self._history.snapshot(), self._evaluated.snapshot()
        taken._job, taken._plan = copy(self._job), copy(self._plan)
        return taken

    @property
    def last(self) -> MetricsLine | None:
        """The newest line of metrics."""
        return self.recent[-1] if self.recent else None

    @property
    def job(self) -> Record:
        """The run's resolved job file, empty while there is none."""
        return self._job.content

    @property
    def plan(self) -> Plan | None:
        """The run's newest plan, None while there is none."""
        return self._plan.content

    def series(self) -> list[Point]:
        """The run's points for charts, oldest first: the thinned history, then each of the recent steps."""
        recent = [Point.of(record) for record in self.recent]
        first = recent[0].step if recent else 0
        return [point for point in self._history.points() if point.step < first] + recent

    def evaluations(self) -> list[Point]:
        """The steps that were followed by an evaluation, oldest first; thinned apart from the others."""
        return [point for point in self._evaluated.points() if point.eval_loss is not None]

    def _read_metrics(self) -> bool:
        before = self._step, self.restarts
        if replaced := self._metrics.replaced():
            self._forget(from_step=0)
        fresh: deque[tuple[int, bytes]] = deque(maxlen=RECENT)
        shadowed = -1, b""
        for line in self._metrics.lines():
            if (step := self._step_of(line)) is None:
                self.unreadable += 1
                continue
            if step <= self._step:
                self.restarts += 1
                self._forget(from_step=step)
                fresh = deque((one for one in fresh if one[0] < step), RECENT)
                shadowed = shadowed if shadowed[0] < step else (-1, b"")
            self._step = step
            fresh.append((step, line))
            self._history.offer(step, line)
            if _EVALUATED in line and _NOT_EVALUATED not in line:
                self._evaluated.offer(step, line)
            if _SHADOWED in line:
                shadowed = step, line
        self._history.settle()
        self._evaluated.settle()
        self.shadowed = (_metrics(shadowed[1]) if shadowed[1] else None) or self.shadowed
        self.recent.extend(record for _, line in fresh if (record := _metrics(line)) is not None)
        return replaced or before != (self._step, self.restarts)

    def _step_of(self, line: bytes) -> int | None:
        """None if the line is unreadable. One that ends with its stages is whole, and parsed only if it steps back."""
        quick = _STEP.match(line)
        if quick and line.endswith(b"]}") and int(quick[1]) > self._step:
            return int(quick[1])
        record = _metrics(line)
        return None if record is None else record["step"]

    def _forget(self, from_step: int) -> None:
        kept = [record for record in self.recent if record["step"] < from_step]
        self.recent = deque(kept, RECENT)
        self._history.cut(from_step)
        self._evaluated.cut(from_step)
        if self.shadowed is not None and self.shadowed["step"] >= from_step:
            self.shadowed = None
        self._step = from_step - 1

    def _read_events(self) -> bool:
        if self._events.replaced():
            for kept in (self.events, self.last_of_kind, self.hosts):
                kept.clear()
        found = False
        for line in self._events.lines():
            if (event := parse(line, EVENT)) is None:
                self.unreadable += 1
                continue
            found = True
            self.events.append(event)
            _keep(self.last_of_kind, event["kind"], event)
            if event["kind"] == "host_ready":
                _keep(self.hosts, str((event.get("data") or {}).get("host"))[:200], event)
        return found


def follow(run_dir: Path) -> Follower:
    """A follower of a directory that is there, polled once. Raises MonitorError where none is."""
    if not run_dir.is_dir():
        raise MonitorError("RUN_DIR", str(run_dir), "must be the folder of a run", "`hetero train` prints its folder")
    follower = Follower(run_dir)
    follower.poll()
    return follower


def _keep(kept: dict[str, Record], name: str, event: Record) -> None:
    if name in kept or len(kept) < NAMES_KEPT:
        kept[name] = event


class _Thinned:
    """Every n-th line of those offered, n doubling when there are too many. Parsed once all of a poll are offered."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, bytes | Point]] = []
        self._every = 1
        self._offered = 0

    def offer(self, step: int, line: bytes) -> None:
        if self._offered % self._every == 0:
            if len(self._kept) >= CHARTED:
                self._kept = self._kept[::2]
                self._every *= 2
            self._kept.append((step, line))
        self._offered += 1

    def settle(self) -> None:
        """Parse what is kept; what turns out to be unreadable is not."""
        parsed = ((step, item if isinstance(item, Point) else _point(item)) for step, item in self._kept)
        self._kept = [(step, point) for step, point in parsed if point is not None]

    def points(self) -> Iterator[Point]:
        return (point for _, point in self._kept if isinstance(point, Point))

    def snapshot(self) -> _Thinned:
        taken = copy(self)
        taken._kept = copy(self._kept)
        return taken

    def cut(self, from_step: int) -> None:
        self._kept = [one for one in self._kept if one[0] < from_step]


class _Tail:
    """The whole lines that a file gained."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._lines = LineSplitter()

    def replaced(self) -> bool:
        """Whether another file took the place of the one read so far, or it was cut; reading then starts over."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        before, self._file = self._file, (found.st_dev, found.st_ino)
        if before in (None, self._file) and found.st_size >= self._offset:
            return False
        self._offset, self._lines = 0, LineSplitter()
        return True

    def lines(self) -> Iterator[bytes]:
        try:
            file = open_plain(self._path)
        except OSError:
            return
        with file:
            file.seek(self._offset)
            while block := file.read(BLOCK_BYTES):
                self._offset += len(block)
                yield from filter(None, self._lines.add(block))


class _Whole(Generic[T]):
    """A small file that is rewritten as a whole; while it is missing or half-written, what it said before."""

    def __init__(self, path: Path, load: Callable[[bytes], T], content: T) -> None:
        self.content = content
        self._path, self._load = path, load
        self._version: tuple[int, int] | None = None

    def read(self) -> bool:
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_size)
            if version == self._version:
                return False
            self._version = version
            self.content = self._load(read_plain(self._path, MOST_WHOLE_BYTES))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return False
        return True


def _plan(data: bytes) -> Plan:
    """Raises ValueError, also for a plan of such numbers that a view would not come to an end."""
    plan = Plan.model_validate(parse_json(data))
    for _, stage in plan.stages():
        ranges = (*stage.units, *(stage.owns or ()))
        if not stage.units or stage.tp > MOST_UNITS or any(not 0 <= a < b <= MOST_UNITS for a, b in ranges):
            raise ValueError("no plan of a model")
    return plan


def _job(data: bytes) -> Record:
    """Raises YAMLError, ValueError."""
    content = _yaml(data)
    check_bounded(content)
    if not fits(content, JOB):
        raise ValueError("no job file")
    return content


def _yaml(data: bytes) -> Any:
    """Raises YAMLError, ValueError."""
    depth = 0
    for event in yaml.parse(data, core_schema.CoreLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError("too deep")
    return core_schema.load(data)


def _metrics(line: bytes) -> MetricsLine | None:
    return cast("MetricsLine | None", parse(line, METRICS_LINE))


def _point(line: bytes) -> Point | None:
    record = _metrics(line)
    return None if record is None else Point.of(record)
