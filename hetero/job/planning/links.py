"""What the planner reckons with between two pools: as the job file says, else as measured, else as is assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from typing import Any

from balancer.cost.topology import LinkSpec
from bridge.codec import CODECS
from bridge.precision import crossing
from hetero.job.job import Job

ASSUMED_GBIT_PER_S = 10.0
ASSUMED_RTT_MS = 0.2

Figures = tuple[float, float]
"""Bytes per second of each direction, and the seconds of a round trip."""


@dataclass(frozen=True)
class Probed:
    """Links as they were measured, a row for each direction, with the keys of Session.probe. Beside emulated chips that
    are `time_scale` times slower than real ones, a real link is as many times faster."""

    rows: Sequence[Mapping[str, Any]] = ()
    time_scale: float = 1.0

    def figures(self, a: str, b: str) -> Figures | None:
        """Of the slower direction; None for what was not measured."""
        found = self._between(a, b)
        if not found:
            return None
        rtt_s = min((row["rtt_s"] for row in found if row["rtt_s"] is not None), default=ASSUMED_RTT_MS / 1e3)
        return min(row["bytes_per_s"] for row in found) * self.time_scale, rtt_s / self.time_scale

    def streams(self, a: str, b: str) -> int | None:
        """How many fill the link, as far as was measured."""
        return next((int(row["streams"]) for row in self._between(a, b)), None)

    def unscaled(self) -> list[dict[str, Any]]:
        """The rows, as if nothing were slowed."""
        scaled = self.time_scale
        return [
            {**row, "bytes_per_s": row["bytes_per_s"] * scaled, "rtt_s": row["rtt_s"] and row["rtt_s"] / scaled}
            for row in self.rows
        ]

    def _between(self, a: str, b: str) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if {row["source"], row["target"]} == {a, b}]


NOTHING_PROBED = Probed()


def unknown_links(job: Job) -> list[tuple[str, str]]:
    """Those worth measuring: real ones that the job file does not describe, or not in full."""
    return [ends for ends in combinations(job.pools, 2) if _is_unknown(job, *ends)]


def link_spec(job: Job, a: str, b: str, probed: Probed) -> LinkSpec:
    """A link as the planner is told of it."""
    codec, precision = job.bridge.codec_between(a, b), crossing(job.precision_of(a), job.precision_of(b))
    bytes_per_s, rtt_s = _figures(job, a, b, probed)
    return LinkSpec(
        (a, b),
        bytes_per_s=bytes_per_s,
        latency_s=rtt_s / 2,
        activation_ratio=CODECS[codec.activation].estimate_ratio(precision),
        gradient_ratio=CODECS[codec.gradient].estimate_ratio(precision),
        codecs=job.bridge.codecs_between(a, b),
    )


def _figures(job: Job, a: str, b: str, probed: Probed) -> Figures:
    """What the job file says counts; unsaid, a link between emulated pools is unlimited."""
    said = job.bridge.link(a, b)
    unsaid = (inf, 0.0) if all(_emulated(job, a, b)) else probed.figures(a, b) or _assumed()
    rate = unsaid[0] if said.gbit_per_s is None else said.gbit_per_s * 1e9 / 8
    return rate, unsaid[1] if said.rtt_ms is None else said.rtt_ms / 1e3


def _is_unknown(job: Job, a: str, b: str) -> bool:
    """A link with one emulated end keeps the pace that is given it: it is real only where nothing is said of it."""
    said, emulated = job.bridge.link(a, b), _emulated(job, a, b)
    unsaid = [figure is None for figure in (said.gbit_per_s, said.rtt_ms)]
    return all(unsaid) and not all(emulated) if any(emulated) else any(unsaid)


def _emulated(job: Job, a: str, b: str) -> list[bool]:
    return [job.pools[end].emulate is not None for end in (a, b)]


def _assumed() -> Figures:
    return ASSUMED_GBIT_PER_S * 1e9 / 8, ASSUMED_RTT_MS / 1e3
