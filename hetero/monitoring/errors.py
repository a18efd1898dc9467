"""The error of monitoring."""

from __future__ import annotations

from hetero.errors import ExplainedError


class MonitorError(ExplainedError):
    """What was asked to watch the run cannot. `key` is a dotted path of the job file, such as `monitor.trackers[0]`."""
