"""What is slower than it was, or computes something else: lines of `metrics.jsonl` in, events out. Pure; the numbers
say all."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hetero.monitoring.notice import Notice

WINDOW = 20
FEWEST = 5
TOLERANCE = 0.10
PATIENCE = 2


@dataclass
class Baseline:
    """One figure's own median over its last good steps, and whether it is worse than that now.

    Worse is by more than `TOLERANCE`, in `PATIENCE` steps in succession: a single hiccup is none. Bad steps do not
    enter the median, so what stays slow stays reported and does not become the norm.
    """

    good: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    bad_steps: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.good)

    @property
    def is_bad(self) -> bool:
        return self.bad_steps >= PATIENCE

    def add(self, value: float, lower_is_worse: bool) -> bool:
        """Takes a step's value; True if it turned bad or good again."""
        was_bad = self.is_bad
        if len(self.good) >= FEWEST and self._is_worse(value, lower_is_worse):
            self.bad_steps += 1
        else:
            self.bad_steps = 0
            self.good.append(value)
        return self.is_bad != was_bad

    def _is_worse(self, value: float, lower_is_worse: bool) -> bool:
        ratio = value / self.median
        return ratio < 1 - TOLERANCE if lower_is_worse else ratio > 1 + TOLERANCE


class Alerts:
    """`pool_slow` when a pool's capacity falls 10% below its own median, `rank_slow` when a stage takes 10% longer than
    its own and which of its ranks is the slowest; `pool_recovered` and `rank_recovered` when that is over. `drift` when
    another pool has computed some of a stage again and found more than the tolerance, each time.

    A new plan epoch begins anew, for other work takes other times.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._pools: dict[str, Baseline] = {}
        self._stages: dict[tuple[int, int], Baseline] = {}

    def record(self, line: Mapping[str, Any]) -> list[Notice]:
        """The events of one line, in the order of its pools and stages."""
        if line["epoch"] != self._epoch:
            self._epoch = line["epoch"]
            self._pools.clear()
            self._stages.clear()
        return [
            replace(notice, step=line["step"], epoch=line["epoch"])
            for notice in (*self._pool_alerts(line), *self._stage_alerts(line), *_drift(line))
        ]

    def _pool_alerts(self, line: Mapping[str, Any]) -> Iterable[Notice]:
        for name, pool in line["pools"].items():
            capacity = pool["capacity_tokens_per_s"]
            baseline = self._pools.setdefault(name, Baseline())
            if capacity > 0 and baseline.add(capacity, lower_is_worse=True):
                facts = {"capacity_tokens_per_s": capacity, "median_tokens_per_s": baseline.median}
                yield Notice(_kind("pool", baseline), {**facts, "ratio": capacity / baseline.median}, pool=name)

    def _stage_alerts(self, line: Mapping[str, Any]) -> Iterable[Notice]:
        for stage in line["stages"]:
            place = stage["pipeline"], stage["stage"]
            compute_s = stage["forward_s"] + stage["backward_s"] + stage["weight_s"]
            baseline = self._stages.setdefault(place, Baseline())
            if compute_s > 0 and baseline.add(compute_s, lower_is_worse=False):
                slowest = f"{stage['pool']}:{stage['slowest_rank']}"
                facts = {"pipeline": place[0], "stage": place[1], "host": stage["host"]}
                times = {"compute_s": compute_s, "median_s": baseline.median, "ratio": compute_s / baseline.median}
                yield Notice(_kind("rank", baseline), facts | times, pool=stage["pool"], rank=slowest)


def _drift(line: Mapping[str, Any]) -> Iterable[Notice]:
    found = dict(line.get("shadow") or {})
    if found and max(found["value"], found.get("gradient", 0.0)) > found["tolerance"]:
        pool = found.pop("pool")
        yield Notice("drift", found, pool=pool)


def _kind(what: str, baseline: Baseline) -> str:
    return f"{what}_slow" if baseline.is_bad else f"{what}_recovered"
