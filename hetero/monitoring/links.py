"""What crosses between pools: from what the ranks saw of their links to the links of a step, one for each direction.

A rank, and so a host, says of every other pool what it sent there and received from there: bytes, and the seconds that
it stood still for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from hetero.monitoring.metrics_line import LinkFigures
from hetero.words.step import CrossedByPool, HostStep

FIGURES = ("bytes_sent", "bytes_per_s", "exposed_s")


@dataclass(frozen=True)
class LinkStatus:
    """One direction between two pools in a step; emulated if one of its ends is. `exposed_s` is the longest time that a
    rank of either end stood still for it."""

    source: str
    target: str
    emulated: bool
    bytes_sent: float
    bytes_per_s: float
    exposed_s: float


def merge_crossed(members: Iterable[CrossedByPool]) -> dict[str, tuple[int, float]]:
    """Of several ranks of one pool: bytes add up; the wait is that of whoever waited longest, for they wait side by
    side."""
    merged: dict[str, tuple[int, float]] = {}
    for crossed in members:
        for pool, (nbytes, waited_s) in crossed.items():
            so_far = merged.get(pool, (0, 0.0))
            merged[pool] = so_far[0] + nbytes, max(so_far[1], waited_s)
    return merged


def total_bytes(crossed: CrossedByPool) -> int:
    return sum(nbytes for nbytes, _ in crossed.values())


def step_links(hosts: Iterable[HostStep], pools: Iterable[str], step_s: float) -> list[LinkFigures]:
    """The links that a step used, in the order of `pools`. `exposed_s` is what a link cost the step at most: seconds
    of the rank, at either end, that stood still for it longest. Waits of different links may lie side by side."""
    found: dict[tuple[str, str], LinkFigures] = {}
    for host in hosts:
        for peer, crossed in host.sent.items():
            _add(found, (host.pool, peer), "bytes_sent", crossed)
        for peer, crossed in host.received.items():
            _add(found, (peer, host.pool), "bytes_received", crossed)
    for link in found.values():
        link["bytes_per_s"] = link["bytes_sent"] / step_s if step_s > 0 else 0.0
    order = list(pools)
    return [found[source, target] for source in order for target in order if (source, target) in found]


def link_statuses(records: Sequence[Mapping[str, Any]], emulated: Iterable[str]) -> tuple[LinkStatus, ...]:
    """The links of some lines of `metrics.jsonl`, each figure the median over the lines that have the link.
    `emulated` are the pools that are."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        for link in record.get("links") or ():
            found.setdefault((link["source"], link["target"]), []).append(link)
    pools = set(emulated)
    return tuple(
        LinkStatus(*ends, not pools.isdisjoint(ends), *(median(row[key] for row in rows) for key in FIGURES))
        for ends, rows in found.items()
    )


def _add(
    found: dict[tuple[str, str], LinkFigures],
    ends: tuple[str, str],
    key: Literal["bytes_sent", "bytes_received"],
    crossed: tuple[int, float],
) -> None:
    nothing: LinkFigures = {
        "source": ends[0], "target": ends[1], "bytes_sent": 0, "bytes_received": 0, "bytes_per_s": 0.0,
        "exposed_s": 0.0,
    }  # fmt: skip
    link = found.setdefault(ends, nothing)
    nbytes, waited_s = crossed
    link[key] += nbytes
    link["exposed_s"] = max(link["exposed_s"], waited_s)
