"""What is decided of a running plan, and from what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from balancer.cost.times import Times, UnitTime
from balancer.cost.workload import Workload
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.speeds import Slowness

Rung = Literal["keep", "shares", "cuts", "plan", "back"]
"""From what moves least: nothing, micro-batches alone, units at the stages' boundaries, everything. And to the plan
before, which a change was to better and did not."""


@dataclass(frozen=True)
class Situation:
    """A `plan` that is obeyed by chips that take `slowness` times what the `problem` says, of `steps_left` steps, each
    of `step_s` as measured; emulated chips and links are `time_scale` times slower. A change of plan lets the run stand
    for `pause_s` beside what its bytes take."""

    plan: Plan
    problem: Problem
    slowness: Slowness
    step_s: float
    steps_left: int
    time_scale: float = 1.0
    pause_s: float = 1.0

    @property
    def true_problem(self) -> Problem:
        """With the times that the chips have now."""
        return replace(self.problem, times=SlowedTimes(self.problem.times, self.slowness))


@dataclass(frozen=True)
class Reasons:
    """As numbers: what a step takes, and what it is predicted to take under the plan that is and the one that would be;
    the seconds that the rest of the run gains, and what the change costs: bytes, and seconds in which it stands."""

    slowness: dict[str, float]
    step_s: float
    stays_s: float
    becomes_s: float
    steps_left: int
    gain_s: float
    cost_s: float
    moved_bytes: int

    @property
    def gain(self) -> float:
        """Of a step, as a part of it."""
        return 1 - self.becomes_s / self.stays_s

    @property
    def net_s(self) -> float:
        return self.gain_s - self.cost_s


@dataclass(frozen=True)
class Decision:
    """`plan` is the one that is, if it is kept; then the reasons are those of the best other one."""

    rung: Rung
    plan: Plan
    reasons: Reasons


class SlowedTimes(Times):
    """Those of `plain` on chips that take `slowness` times as long. A tp of which nobody has heard is as slow as the
    others of its pool."""

    def __init__(self, plain: Times, slowness: Slowness) -> None:
        super().__init__({})
        self._plain, self._slowness = plain, dict(slowness)

    def lookup(self, pool: str, tp: int, *unit: Any, **how: Any) -> UnitTime:
        return self._plain.lookup(pool, tp, *unit, **how).slowed(self._ratio(pool, tp))

    def again_s(self, pool: str, tp: int, *unit: Any, **how: Any) -> float | None:
        plain = self._plain.again_s(pool, tp, *unit, **how)
        return None if plain is None else plain * self._ratio(pool, tp)

    def knows(self, pool: str, tp: int, workload: Workload) -> bool:
        return self._plain.knows(pool, tp, workload)

    def _ratio(self, pool: str, tp: int) -> float:
        if (pool, tp) not in self._slowness:
            known = [ratio for (name, _), ratio in self._slowness.items() if name == pool]
            self._slowness[pool, tp] = fmean(known) if known else 1.0
        return self._slowness[pool, tp]
