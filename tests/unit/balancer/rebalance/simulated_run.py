"""A run in simulated time, whose chips change their speed and whose plan follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.decision import Decision, SlowedTimes
from balancer.rebalance.moves import move
from balancer.rebalance.policy import decide
from balancer.rebalance.rebalancer import Rebalancer
from balancer.simulate.simulate import simulate


def slower(problem: Problem, ratios: dict[str, float]) -> Problem:
    sizes = {(pool.name, tp): ratios.get(pool.name, 1.0) for pool in problem.topology.pools for tp in pool.tp_sizes()}
    return replace(problem, times=SlowedTimes(problem.times, sizes))


@dataclass
class SimulatedRun:
    """`ratio_at` says by pool how much slower than planned its chips are in a step; each stage's seconds stray by up to
    `noise`. `static_s` is what a run that keeps its plan takes, `run_s` what this one takes, pauses included."""

    problem: Problem
    plan: Plan
    steps: int
    ratio_at: Callable[[int], dict[str, float]]
    noise: float = 0.0
    gaussian: bool = False
    pause_s: float = 0.5
    random: Random = field(default_factory=lambda: Random(1))
    moves: list[tuple[int, Decision]] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    static_s: float = 0.0
    paused_s: float = 0.0

    def run(self) -> SimulatedRun:
        first, known = self.plan, {}
        rebalancer = Rebalancer(self.problem, self.steps)
        rebalancer.begin(self.plan, 0, self.pause_s)
        for step in range(self.steps):
            ratios = self.ratio_at(step)
            took = self._step(self.plan, ratios, known)
            self.static_s += self._step(first, ratios, known).step_s
            self.steps_s.append(took.step_s)
            stages_s = {place: seconds * self._stray() for place, seconds in took.busy_s.items()}
            situation = rebalancer.hear(step, took.step_s, stages_s)
            decision = decide(situation) if situation else None
            if decision and decision.rung != "keep":
                self.moves.append((step + 1, decision))
                self.paused_s += self.pause_s + move(self.plan, decision.plan, self.problem).seconds
                self.plan = decision.plan
                rebalancer.begin(self.plan, step + 1, self.pause_s)
        return self

    @property
    def run_s(self) -> float:
        return sum(self.steps_s) + self.paused_s

    def _step(self, plan, ratios, known):
        key = plan.to_json(), tuple(sorted(ratios.items()))
        if key not in known:
            known[key] = simulate(plan, slower(self.problem, ratios))
        return known[key]

    def _stray(self) -> float:
        return 1 + (self.random.gauss(0, self.noise) if self.gaussian else self.random.uniform(-self.noise, self.noise))


def slow_between(pool: str, ratio: float, begin: int, end: int) -> Callable[[int], dict[str, float]]:
    return lambda step: {pool: ratio} if begin <= step < end else {}


def moved_at(run: SimulatedRun) -> Sequence[int]:
    return [step for step, _ in run.moves]
