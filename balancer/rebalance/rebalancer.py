"""Follows a run step by step, and asks when there is something to decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median

from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.rebalance.decision import Situation
from balancer.rebalance.speeds import Slowness, SpeedWatch
from balancer.simulate.simulate import simulate

USUAL_PAUSE_S = 2.0
"""What a change of plan takes beside its bytes, until one has shown it."""


class Rebalancer:
    """Of a run of `steps` steps whose plans are made for `problem`; emulated chips and links are `time_scale` times
    slower."""

    def __init__(self, problem: Problem, steps: int, time_scale: float = 1.0) -> None:
        self._problem, self._steps, self._time_scale = problem, steps, time_scale
        self._watch = SpeedWatch()
        self._pause_s = USUAL_PAUSE_S
        self._steps_s: deque[float] = deque(maxlen=3)
        self._plan: Plan
        self._first = 0

    @property
    def slowness(self) -> Slowness:
        """What it believes of the pools."""
        return self._watch.slowness

    def begin(self, plan: Plan, step: int, paused_s: float | None = None) -> None:
        """A plan is obeyed from `step` on, for which the run stood still that long."""
        self._plan, self._first = plan, step
        self._steps_s.clear()
        self._pause_s = self._pause_s if paused_s is None else paused_s
        self._watch.begin(simulate(plan, self._problem), self._time_scale)

    def hear(self, step: int, step_s: float, stages_s: Mapping[Place, float]) -> Situation | None:
        """What a step took, and what each of its stages computed in it. An epoch's first step, which warms up, says
        nothing of chips."""
        if step == self._first:
            return None
        self._steps_s.append(step_s)
        if not self._watch.hear(stages_s):
            return None
        left = self._steps - step - 1
        now_s = median(self._steps_s)
        return Situation(self._plan, self._problem, self.slowness, now_s, left, self._time_scale, self._pause_s)
