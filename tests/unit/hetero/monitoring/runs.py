"""A small run to watch: its facts and its lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hetero.monitoring.journal import Record
from hetero.monitoring.record import merge_hosts
from hetero.monitoring.tracked import TrackedRun
from tests.unit.hetero.monitoring.reports import POOLS, TOTALS, facts, merged, rank_report


def tracked(folder: Path = Path("runs/small-run")) -> TrackedRun:
    pools = {"a": POOLS["a"], "b": replace(POOLS["b"], emulate=None)}
    return TrackedRun("small", folder, pools, {"name": "small", "train": {"steps": 5}})


def line(step: int, slow_a: float = 1.0, **changes: Any) -> Record:
    """Step `step`, whose loss is 5 - 0.1 * step; pool "a" computes `slow_a` times as long as it should."""
    times = {"forward_s": 0.2 * slow_a, "backward_s": 0.4 * slow_a}
    totals = TOTALS | {"loss": 5.0 - 0.1 * step}
    a = merged(
        [rank_report("a", 0, step=step, totals=totals), rank_report("a", 1, step=step, **times, end=101 + slow_a)]
    )
    b = merged([rank_report("b", 0, step=step, stage=1)])
    return merge_hosts([a, b], facts()) | {"time": 1_764_000_000.25 + step} | changes
