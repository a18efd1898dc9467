"""Follows a run step by step, and asks when there is something to decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median

from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.rebalance.decision import Decision, Situation
from balancer.rebalance.policy import regret
from balancer.rebalance.speeds import Slowness, SpeedWatch
from balancer.simulate.simulate import simulate

JUDGED_BY = 3
"""So many steps say what one takes."""
USUAL_PAUSE_S = 2.0
"""What a change of plan takes beside its bytes, until one has shown it."""


class Rebalancer:
    """Of a run of `steps` steps whose plans are made for `problem`; emulated chips and links are `time_scale` times
    slower."""

    def __init__(self, problem: Problem, steps: int, time_scale: float = 1.0) -> None:
        self._problem, self._steps, self._time_scale = problem, steps, time_scale
        self._watch = SpeedWatch()
        self._pause_s = USUAL_PAUSE_S
        self._steps_s: deque[float] = deque(maxlen=JUDGED_BY)
        self._plan: Plan
        self._first = 0
        self._left: tuple[Plan, float] | None = None
        self._regretted = False

    @property
    def slowness(self) -> Slowness:
        """What it believes of the pools."""
        return self._watch.slowness

    def begin(self, plan: Plan, step: int, paused_s: float | None = None) -> None:
        """A plan is obeyed from `step` on, for which the run stood still that long, if it was another one before."""
        if paused_s is not None:
            self._pause_s = paused_s
            is_known = len(self._steps_s) == JUDGED_BY and not self._regretted
            self._left = (self._plan, median(self._steps_s)) if is_known else None
        self._plan, self._first, self._regretted = plan, step, False
        self._steps_s.clear()
        self._watch.begin(simulate(plan, self._problem), self._time_scale)

    def hear(self, step: int, step_s: float, stages_s: Mapping[Place, float]) -> Situation | None:
        """What a step took, and what each of its stages computed in it; the situation, if a pool has changed its speed.
        An epoch's first step, which warms up, says nothing of chips."""
        if step == self._first:
            return None
        self._steps_s.append(step_s)
        if not self._watch.hear(stages_s):
            return None
        self._left = None
        return self._situation(step)

    def regret(self, step: int) -> Decision | None:
        """Back to the plan before, where the change to this one has made steps longer; asked once, after a few."""
        if self._left is None or len(self._steps_s) < JUDGED_BY:
            return None
        (before, before_s), self._left = self._left, None
        decision = regret(self._situation(step), before, before_s)
        self._regretted = decision is not None
        return decision

    def _situation(self, step: int) -> Situation:
        now_s, left = median(self._steps_s), self._steps - step - 1
        return Situation(self._plan, self._problem, self.slowness, now_s, left, self._time_scale, self._pause_s)
