"""Who has the last word: simulation of whole plans, each once, as far as effort and time go."""

from __future__ import annotations

from math import inf
from time import monotonic

from balancer.completion.completion import predict
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.simulate.simulate import Prediction

_WORK, _OF_A_CHIP = 1024, 16
"""Forwards and backwards that are simulated while plans are compared, and then while all are looked through; and more
for each chip."""
_EACH, _STAGE, _TIMED = 64, 16, 12
"""How many of these the rest of a plan counts for, of each stage, and each one of a schedule whose lists take a while
to make."""
_LIGHT = 4096
"""Work up to which a plan of such a schedule is no burden."""


class PlanJudge:
    """Of the plans of one problem. `work` is what their simulation took so far, of `most_work`; `interrupted` says that
    there was no time for more."""

    def __init__(self, problem: Problem, effort: float = 1.0, ends_at: float = inf) -> None:
        self.problem, self.ends_at = problem, ends_at
        self.predictions: dict[Plan, Prediction | None] = {}
        self.best: Prediction | None = None
        self.work = 0.0
        chips = sum(pool.count for pool in problem.topology.pools)
        self.most_work, self._light = effort * (_WORK + _OF_A_CHIP * chips), effort * _LIGHT
        self.interrupted = False

    @property
    def best_s(self) -> float:
        return self.best.step_s if self.best else inf

    @property
    def fitting(self) -> list[Prediction]:
        """Of all plans that fit, in the order in which they were asked for."""
        return [one for one in self.predictions.values() if one is not None]

    @property
    def is_over(self) -> bool:
        self.interrupted = self.interrupted or monotonic() > self.ends_at
        return self.interrupted

    def predict(self, plan: Plan) -> Prediction | None:
        """Of the plan, completed; None where it doesn't fit."""
        if plan not in self.predictions:
            self.work += self.worth(plan)
            try:
                found = predict(plan, self.problem)
            except PlanError:
                self.predictions[plan] = None
                return None
            self.predictions[plan] = found
            if found.step_s < self.best_s:
                self.best = found
        return self.predictions[plan]

    def worth(self, plan: Plan) -> int:
        """How much work a plan is, by its actions alone."""
        each = _TIMED if schedule(plan.schedule).timed else 1
        unlike = {(p.share, id(p.stages)): p for p in plan.pipelines}.values()
        stages = sum(len(p.stages) for p in plan.pipelines)
        return _EACH + _STAGE * stages + each * sum(p.micro_batches * len(p.stages) for p in unlike)

    def is_light(self, plan: Plan) -> bool:
        return not schedule(plan.schedule).timed or self.worth(plan) <= self._light
