"""A run's figures among Ray's own metrics, on the metrics endpoint of the node that drives it.

They bear the names and labels of the run's Prometheus endpoint; Ray puts `ray_` before them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from hetero.monitoring.prometheus import LINK, LINK_GAUGES, POOL, POOL_GAUGES, RUN, RUN_GAUGES
from hetero.monitoring.tracked import TrackedRun

Table = Mapping[str, tuple[str, str]]
logger = logging.getLogger(__name__)


class RayMetrics:
    """Takes the lines of `metrics.jsonl` of a run whose Ray is up."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._of_run, self._of_pool, self._of_link = (
            _gauges(table, labels) for table, labels in ((RUN_GAUGES, RUN), (POOL_GAUGES, POOL), (LINK_GAUGES, LINK))
        )
        self._tokens = Counter("hetero_tokens", "Tokens trained since this process started.", RUN)
        self._sent = Counter("hetero_bridge_sent_bytes", "Bytes that the pool sent over the bridge.", POOL)
        self._failed = False

    def record(self, line: Mapping[str, Any]) -> None:
        """What a line lacks keeps its last value. Ray's trouble with it is none of the run's, and is told once."""
        if self._failed:
            return
        try:
            self._record(line)
        except Exception as error:
            self._failed = True
            logger.warning("Ray takes no metrics any more: %s", error)

    def _record(self, line: Mapping[str, Any]) -> None:
        labels = self._run.labels()
        _set(self._of_run, line, labels)
        if line["tokens"]:
            self._tokens.inc(line["tokens"], labels)
        for name, pool in line["pools"].items():
            _set(self._of_pool, pool, self._run.labels(name))
            if pool["bytes_sent"]:
                self._sent.inc(pool["bytes_sent"], self._run.labels(name))
        for link in line["links"]:
            _set(self._of_link, link, self._run.link_labels(link["source"], link["target"]))


def _gauges(table: Table, labels: tuple[str, ...]) -> dict[str, Gauge]:
    return {key: Gauge(name, text, labels) for key, (name, text) in table.items()}


def _set(gauges: Mapping[str, Gauge], values: Mapping[str, Any], labels: dict[str, str]) -> None:
    for key, gauge in gauges.items():
        if values.get(key) is not None:
            gauge.set(values[key], labels)
