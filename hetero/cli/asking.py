"""Whom a command asks which chips a job's pools have."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.probe import Detection
    from hetero.cluster.options import PoolOptions
    from hetero.job.planning.chips import AskChips
    from hetero.monitoring.notice import Notice


def asking(address: str | None) -> AskChips:
    """This host, or the hosts of the cluster at HOST:PORT. Ray is imported only if they are asked."""
    from hetero.job.planning.chips import ask_here

    return ask_here if address is None else partial(_joined, address=address)


def _joined(pools: Mapping[str, PoolOptions], *, address: str) -> dict[str, Detection]:
    from hetero.interrupts import sigmask

    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):  # in the threads of Ray
        from hetero.cluster.onray.chips import ask_joined
    return ask_joined(pools, address, _tell)


def _tell(notice: Notice) -> None:
    """That it waits for places, and that it has them."""
    from hetero.monitoring.progress import event_text

    typer.echo(event_text({"kind": notice.kind, "data": notice.data}), err=True)
