"""What the page shows of a run, in sections that are sent only when they changed."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hetero.monitoring.dashboard.live_ledger import Judge, LiveLedger
from hetero.monitoring.follow import Follower, Point
from hetero.monitoring.journal import Record
from hetero.monitoring.shadow_status import ShadowStatus
from hetero.monitoring.status import PoolStatus, RunStatus, status
from hetero.monitoring.timeline import Timeline, last_timeline

COLORS = 8
EVENTS_SHOWN = 100
RANKS_SHOWN = 64
_TURNS = re.compile(r"\\u(061c|200[ef]|202[a-e]|206[6-9])")

Sections = dict[str, str]


class RunView:
    """One run as the page sees it. `refresh` reads, the rest answers from what was read. Without a `judge` the page has
    no ledger."""

    def __init__(self, run_dir: Path, judge: Judge | None = None) -> None:
        self._follower = Follower(run_dir)
        self._ledger = LiveLedger(judge) if judge else None
        self._trace = run_dir / "trace.json"
        self._traced: tuple[int, int] | None = None
        self._timeline: dict[str, Any] | None = None
        self.sections: Sections = {}
        self.series: tuple[Point, ...] = ()
        self.pools: tuple[str, ...] = ()

    def close(self) -> None:
        """Nobody judges the run any longer."""
        if self._ledger:
            self._ledger.close()

    def refresh(self) -> bool:
        """Read what was added to the run directory; True where the page has something new to show."""
        self._follower.poll()
        self._read_trace()
        run = status(self._follower)
        sections = {
            "run": _run(run, self._follower),
            "record": self._follower.last,
            "evaluations": [[point.step, point.eval_loss] for point in run.evaluations],
            "stages": [asdict(stage) for stage in run.stages],
            "plan": _plan(run),
            "timeline": self._timeline,
            "ledger": self._ledger and self._ledger.of(self._follower),
            "events": run.events[-EVENTS_SHOWN:],
        }
        before = self.sections, self.series[-1:]
        self.sections = {name: _text(content) for name, content in sections.items()}
        self.series, self.pools = run.series, tuple(pool.name for pool in run.pools)
        return (self.sections, self.series[-1:]) != before

    def _read_trace(self) -> None:
        try:
            found = self._trace.stat()
        except OSError:
            return
        version = found.st_mtime_ns, found.st_size
        if version != self._traced:
            self._traced = version
            self._timeline = _timeline(last_timeline(self._trace))


class OpenPage:
    """What one open page has been sent already."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._sent: Sections = {}
        self._last: Point | None = None
        self._begun = False

    def news(self) -> Iterator[tuple[str, str]]:
        """Name and JSON of each section that differs from what was sent, then the points since the last ones."""
        for name, text in self._view.sections.items():
            if self._sent.get(name) != text:
                self._sent[name] = text
                yield name, text
        yield from self._points()

    def _points(self) -> Iterator[tuple[str, str]]:
        series = self._view.series
        known = _known(series, self._last)
        reset = not self._begun or (known == 0 and self._last is not None)
        if known < len(series) or reset:
            self._begun, self._last = True, series[-1] if series else None
            pools = self._view.pools
            points = [_numbers(point, pools) for point in series[known:]]
            yield "points", _text({"reset": reset, "pools": pools, "points": points})


def _text(content: Any) -> str:
    """As JSON, without what turns the direction of reading in a browser."""
    return _TURNS.sub(r"\\ufffd", json.dumps(content))


def _known(series: Sequence[Point], last: Point | None) -> int:
    """How many points a page has that was sent all up to `last`; 0 where the run began anew since."""
    if last is None:
        return 0
    index = bisect_left(series, last.step, key=lambda point: point.step)
    return index + 1 if index < len(series) and series[index].time == last.time else 0


def _numbers(point: Point, pools: Iterable[str]) -> list[Any]:
    """Step, loss, tokens/s, then of each pool its capacity and tokens/s; to six digits, as fine as a curve shows."""
    rates = [(point.capacity.get(pool), point.pool_tokens_per_s.get(pool)) for pool in pools]
    return [point.step, *map(_six_digits, (point.loss, point.tokens_per_s, *(rate for pair in rates for rate in pair)))]


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _run(run: RunStatus, follower: Follower) -> dict[str, Any]:
    slow = slow_now(run.events)
    return {
        "name": run.name,
        "folder": str(follower.run_dir),
        "state": run.state,
        "failure": run.failure,
        "emulated": run.emulated,
        "label": run.label,
        "steps": run.steps,
        "left_s": run.seconds_left,
        "overruns": run.overruns,
        "shadow": run.shadow and _shadow(run.shadow),
        "restarts": run.restarts,
        "pools": [_pool(pool, color, slow) for color, pool in enumerate(run.pools)],
        "slow_ranks": sorted({str(event["rank"]) for event in slow if event.get("rank")}),
    }


def _shadow(found: ShadowStatus) -> dict[str, Any]:
    return {**asdict(found), "drifts": found.drifts}


def _plan(run: RunStatus) -> dict[str, Any] | None:
    """With the numbers of equal pipelines, which are drawn once, and in words what is idle."""
    if run.plan is None:
        return None
    plan = run.plan.model_dump(mode="json", exclude_none=True)
    return {**plan, "equal": run.equal, "idle": list(map(str, run.idle))}


def _pool(pool: PoolStatus, color: int, slow: Iterable[Record]) -> dict[str, Any]:
    alert = next((event for event in slow if event["kind"] == "pool_slow" and event.get("pool") == pool.name), None)
    return {
        "name": pool.name,
        "family": pool.pool.family,
        "chip": pool.pool.chip,
        "count": pool.pool.count,
        "idle": pool.idle_chips,
        "emulated": pool.emulated,
        "color": color % COLORS,
        "slow": alert and alert.get("data"),
    }


def _timeline(traced: Timeline | None) -> dict[str, Any] | None:
    """Ranks are titled `nvidia:0 on nvidia@0`; spans are [name, start, seconds]."""
    if traced is None:
        return None
    ranks = [
        {"rank": title.rpartition(" on ")[0], "spans": [[span.name, span.start_s, span.seconds] for span in spans]}
        for title, spans in traced.ranks.items()
    ]
    length = max(span.start_s + span.seconds for spans in traced.ranks.values() for span in spans)
    return {"step": traced.step, "seconds": length, "ranks": ranks[:RANKS_SHOWN], "hidden": len(ranks[RANKS_SHOWN:])}


def slow_now(events: Iterable[Record]) -> list[Record]:
    """The alerts, `pool_slow` and `rank_slow`, that no recovery has taken back and no new plan has made void."""
    open_alerts: dict[tuple[Any, ...], Record] = {}
    for event in events:
        what, _, became = event["kind"].rpartition("_")
        data = event.get("data") or {}
        place = what, event.get("pool"), str(data.get("pipeline")), str(data.get("stage"))
        if event["kind"] == "configured":
            open_alerts.clear()
        elif became == "slow":
            open_alerts[place] = event
        elif became == "recovered":
            open_alerts.pop(place, None)
    return list(open_alerts.values())
