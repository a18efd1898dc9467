"""Whom is asked which chips a job's pools have."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hetero.interrupts import sigmask
from hetero.job.planning.chips import AskChips, ask_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.probe import Detection
    from hetero.cluster.options import PoolOptions

Tell = Callable[[dict[str, Any]], None]
"""Hears what comes to pass: `kind` and `data`, as of an event."""


def asking(address: str | None, tell: Tell) -> AskChips:
    """This host, or the hosts of the cluster at HOST:PORT; `tell` hears that it waits for places, and that it has
    them. Ray is imported only if they are asked."""
    return ask_here if address is None else partial(_joined, address=address, tell=tell)


def _joined(pools: Mapping[str, PoolOptions], *, address: str, tell: Tell) -> dict[str, Detection]:
    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):  # in the threads of Ray
        from hetero.cluster.onray.chips import ask_joined
    return ask_joined(pools, address, lambda notice: tell({"kind": notice.kind, "data": notice.data}))
