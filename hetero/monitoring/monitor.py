"""All that looks at a run beside its journals and its screen: trackers, the Prometheus endpoint, alerts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hetero.errors import did_you_mean
from hetero.monitoring.alerts import Alerts
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.feed import SECONDS_TO_CLOSE, Feed, Line
from hetero.monitoring.notice import Notice
from hetero.monitoring.options import MonitorOptions, TrackerChoice
from hetero.monitoring.tracked import TrackedRun
from hetero.monitoring.tracker import Tracker, curves, load_tracker

if TYPE_CHECKING:
    from hetero.monitoring.prometheus import PrometheusServer


class Monitor:
    """Is fed what the journals are fed, and answers with what should be written to `events.jsonl`.

    Never raises once it is made, and never makes the run wait; making it raises MonitorError where a tracker is
    unknown or not installed, its options are wrong, or the port is taken.
    """

    def __init__(self, options: MonitorOptions, run: TrackedRun) -> None:
        self._run = run
        self._alerts = Alerts()
        self._makers = [(one.name, _maker(one, index, run)) for index, one in enumerate(options.trackers)]
        self._prometheus = _prometheus(options, run)
        self._feeds: list[Feed] = []

    def start(self) -> list[Notice]:
        """Trackers begin to write into the run's folder."""
        self._feeds = [Feed(name, make) for name, make in self._makers]
        return [Notice("prometheus_serves", {"url": self._prometheus.url})] if self._prometheus else []

    def record(self, line: Mapping[str, Any]) -> list[Notice]:
        """One line of `metrics.jsonl`."""
        if self._prometheus:
            self._prometheus.metrics.record(line)
        if self._feeds:
            values = Line(line["step"], line["time"], curves(line, self._run))
            for feed in self._feeds:
                feed.put(values)
        return [*self._alerts.record(line), *(notice for feed in self._feeds for notice in feed.notices())]

    def event(self, event: Mapping[str, Any]) -> None:
        """One line of `events.jsonl`."""
        if self._prometheus:
            self._prometheus.metrics.event(event)

    def close(self) -> list[Notice]:
        """Ends all at once; what hangs is left behind after 10 seconds. Nothing more to say when called again."""
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.end()
        deadline = time.monotonic() + SECONDS_TO_CLOSE
        notices = [notice for feed in feeds for notice in feed.close(max(deadline - time.monotonic(), 0.0))]
        if self._prometheus:
            self._prometheus.close()
            self._prometheus = None
        return notices


def _maker(choice: TrackerChoice, index: int, run: TrackedRun) -> Callable[[], Tracker]:
    key = f"monitor.trackers[{index}]"
    kind = load_tracker(choice.name, key)
    try:
        options = kind.Options.model_validate(choice.options)
    except ValidationError as error:
        raise _explained(error, key, kind) from None
    return lambda: kind(run, options)


def _explained(error: ValidationError, key: str, kind: type[Tracker]) -> MonitorError:
    first = error.errors(include_url=False)[0]
    place = ".".join((f"{key}.options", *map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return MonitorError(place, name, "is no option of this tracker", did_you_mean(name, kind.Options.model_fields))
    remedy = first.get("ctx", {}).get("remedy", "correct it; docs/monitoring.md lists what it takes")
    return MonitorError(place, first["input"], first["msg"].removeprefix("Value error, "), remedy)


def _prometheus(options: MonitorOptions, run: TrackedRun) -> PrometheusServer | None:
    if options.prometheus_port is None:
        return None
    from hetero.monitoring.prometheus import PrometheusServer

    return PrometheusServer(run, options.prometheus_port)
