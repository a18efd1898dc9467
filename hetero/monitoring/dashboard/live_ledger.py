"""The ledger of a run that goes on. To judge a run takes some simulations of its plan, seconds to minutes of a large
one, so it is done now and then, and nobody waits for it."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any, NamedTuple

from balancer.search.pool_ledger import PoolLedger
from hetero.monitoring.follow import Follower
from hetero.monitoring.report.tables import LedgerTable

Judge = Callable[[Follower], LedgerTable]

EVERY_S = 5.0
MOST_PART = 0.02
"""Of the time, that judging may take."""
ENDING_S = 5.0
log = logging.getLogger(__name__)


class _LastLedger(NamedTuple):
    """A ledger for the page, and from when on the next may be made, by the monotonic clock."""

    table: dict[str, Any] | None
    due_s: float


class LiveLedger:
    """As `judge` has it, at most every few seconds, and never for more than a small part of the time.

    Each ledger is made in a thread of its own, one at a time, which ends with it, or at `close`. The thread reads a
    snapshot, and shares nothing but what it leaves behind at its end.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._newest: Any = None
        self._last = _LastLedger(None, 0.0)
        self._thread = Thread()
        self._starting, self._closed = Lock(), False

    def of(self, follower: Follower) -> dict[str, Any] | None:
        """For the page, as it was judged last. None before the first, and where the steps that it is of are no longer
        there. Never waits."""
        if (line := follower.last) is None:
            return None
        is_judging, newest = self._thread.is_alive(), (line["step"], line.get("time"))
        table, due_s = self._last  # after `is_judging`: what has ended by then has left its ledger
        if newest != self._newest and not is_judging and time.monotonic() >= due_s:
            self._newest = newest
            self._start(follower.snapshot())
        return table if table and table["step"] <= line["step"] else None

    def close(self) -> None:
        """Whoever judges stops, and nobody else begins: a thread that computes while its interpreter ends may abort the
        process. Waits for some seconds at most, should a judge hang. Any thread may call it."""
        with self._starting:
            self._closed = True
        if self._thread.is_alive():
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
            self._thread.join(ENDING_S)

    def _start(self, follower: Follower) -> None:
        with self._starting:
            if not self._closed:
                self._thread = Thread(target=self._work, args=(follower,), name="live ledger", daemon=True)
                self._thread.start()

    def _work(self, follower: Follower) -> None:
        began_s, (table, _) = time.monotonic(), self._last
        try:
            table = _plain(self._judge(follower), follower)
        except SystemExit:
            return
        except Exception:
            log.exception("the run cannot be judged")  # what was judged before stays on the page
        now_s = time.monotonic()
        self._last = _LastLedger(table, now_s + max(EVERY_S, (now_s - began_s) / MOST_PART))


def _plain(table: LedgerTable, follower: Follower) -> dict[str, Any]:
    return {
        "step": follower.last and follower.last["step"],
        "missing": table.missing,
        "speeds": table.speeds,
        "predicted_step_s": table.predicted_step_s,
        "measured_step_s": table.measured_step_s,
        "rows": [[row.term, row.predicted, row.measured] for row in table.rows],
        "parts": PoolLedger._fields,
        "pools": [[name, *parts] for name, parts in table.pools.items()],
    }
