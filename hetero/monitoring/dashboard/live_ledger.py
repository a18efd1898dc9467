"""The ledger of a run that goes on. To judge a run takes some simulations of its plan, so it is done now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from balancer.search.pool_ledger import PoolLedger
from hetero.monitoring.follow import Follower
from hetero.monitoring.report.tables import LedgerTable

Judge = Callable[[Follower], LedgerTable]

EVERY_S = 5.0
MOST_PART = 0.02
"""Of the time, that judging may take."""


class LiveLedger:
    """As `judge` has it, at most every few seconds, and never for more than a small part of the time."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._judged: Any = None
        self._due_s = 0.0
        self._table: dict[str, Any] | None = None

    def of(self, follower: Follower) -> dict[str, Any] | None:
        """For the page; None before the first step."""
        last = follower.last
        newest = last and (last["step"], last.get("time"))
        began_s = time.monotonic()
        if newest != self._judged and began_s >= self._due_s:
            self._judged, self._due_s = newest, began_s + EVERY_S
            self._table = None if last is None else _plain(self._judge(follower))
            now_s = time.monotonic()
            self._due_s = now_s + max(EVERY_S, (now_s - began_s) / MOST_PART)
        return self._table


def _plain(table: LedgerTable) -> dict[str, Any]:
    return {
        "missing": table.missing,
        "speeds": table.speeds,
        "predicted_step_s": table.predicted_step_s,
        "measured_step_s": table.measured_step_s,
        "rows": [[row.term, row.predicted, row.measured] for row in table.rows],
        "parts": PoolLedger._fields,
        "pools": [[name, *parts] for name, parts in table.pools.items()],
    }
