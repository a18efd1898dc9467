"""The search itself: promising shapes by formula, the best of them by simulation; then, as far as the effort goes, one
after another of all that may still be faster, until nothing is left or what is left is told in the certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice
from math import inf
from time import monotonic

from balancer.problem import Problem
from balancer.search.certificate import Certificate, SpaceSizes, Unseen
from balancer.search.enumeration import Enumeration
from balancer.search.grouping import Grouping
from balancer.search.judge import PlanJudge
from balancer.search.narrower import with_one_schedule, with_one_tp, without_each_pool
from balancer.search.pricing import Candidate
from balancer.search.proposer import Proposer
from balancer.search.shapes import Shape
from balancer.simulate.simulate import Prediction

OnProgress = Callable[[float, float], None]
_SHAPES = 8
"""Promising shapes that are cut."""
_SIMULATED = 4
"""Of the plans that formulas find best, those that are simulated at least, and of few chips twice as many; how many
more depends on their size."""
_TRIED = 3
"""Of the groupings next to the best one, those that are simulated at a time."""
_NEAR = 1.05
"""How much longer than the best step theirs may be by formula, which is not exact."""
_ROUNDS = 8
"""How often the search goes on from there at most."""
_FEW, _POOLS = 16, 4
"""Chips of a problem of which narrower ones are searched, too; and pools, up to which one without each of them is."""
_LISTED = 128
"""Plans, and shapes, that are listed one by one."""


class Seeking:
    """One search."""

    def __init__(
        self, problem: Problem, effort: float = 1.0, deadline_s: float | None = None, progress: OnProgress | None = None
    ) -> None:
        self.problem, self.effort, self.progress = problem, effort, progress
        self.judge = PlanJudge(problem, effort, inf if deadline_s is None else monotonic() + deadline_s)
        self.proposer = Proposer(problem, self.judge)
        self.grouping: Grouping | None = None
        """That of the best plan."""
        self.enumerated = 0
        self.left: set[Unseen] = set()
        self.open_s = inf

    def run(self, whole: bool = True) -> list[Prediction]:
        """What was simulated, fastest first; of equally fast ones, more pools first. Narrower problems, too, where
        `whole`."""
        try:
            self._compare()
            if self.judge.best is None:
                self._make_fit()
            self._refine()
            self._look_through()
            if whole:
                self._narrow()
        except KeyboardInterrupt:
            if self.judge.best is None:
                raise
            self.judge.interrupted = True
        if self.judge.interrupted:
            self._leave(Unseen.SHAPES, self.proposer.least_s)
        return sorted(self.judge.fitting, key=lambda one: (one.step_s, -len(one.plan.pools())))

    @property
    def sizes(self) -> SpaceSizes:
        space, simulated = self.proposer.space, len(self.judge.predictions)
        counted = self.proposer.priced, self.enumerated, simulated
        return SpaceSizes(space.size, space.passed_over, self.proposer.shapes.size, *counted)

    @property
    def certificate(self) -> Certificate:
        step_s = self.judge.best_s
        return Certificate(min(step_s, self.open_s), step_s, frozenset(self.left), self.judge.interrupted)

    def best_with(self, pool: str) -> float | None:
        """The best step of a plan with a pool that the formulas know of."""
        if known := [one.step_s for one in self.judge.fitting if pool in one.plan.pools()]:
            return min(known)
        bounds_s = self.proposer.bounds_s
        for parts in sorted(bounds_s, key=bounds_s.__getitem__):
            if any(pool in part for part in parts):
                for candidate in self.proposer.candidates([parts], 1):
                    if found := self._try(candidate):
                        return found.step_s
        return None

    def _compare(self) -> None:
        """Simulates the plans that formulas find best."""
        judge, bounds_s = self.judge, self.proposer.bounds_s
        found = self.proposer.candidates(bounds_s, max(1, round(_SHAPES * self.effort)))
        least = 2 * _SIMULATED if self._few else _SIMULATED
        for number, candidate in enumerate(self.proposer.led(found)):
            much = number >= least and judge.work + judge.worth(candidate.plan) > judge.most_work
            if judge.best and (much or judge.is_over):
                return
            self._try(candidate)
            self._tell(0.1 + 0.4 * min(1.0, judge.work / judge.most_work))

    def _make_fit(self) -> None:
        """Nothing that seemed fast fits: simulates what has most room for the model, until something does."""
        for candidate in self.proposer.roomiest():
            if self._try(candidate) or self.judge.is_over:
                return

    def _refine(self) -> None:
        """Goes from the best plan to the best one next to it, while there is a faster one."""
        tried = {self.grouping} if self.grouping else set()
        for _ in range(max(1, round(_ROUNDS * self.effort))):
            if self.grouping is None or self.judge.is_over:
                return
            before_s = self.judge.best_s
            near = self.proposer.near(self.grouping, before_s, tried)
            for candidate in islice((one for one in near if self.judge.is_light(one.plan)), _TRIED):
                if candidate.step_s < _NEAR * before_s and not self.judge.is_over:
                    tried.add(candidate.grouping)
                    self._try(candidate)
            if self.judge.best_s == before_s:
                return

    def _look_through(self) -> None:
        """All that may be faster, by its bound, while it is little enough."""
        judge, bounds_s, shapes = self.judge, self.proposer.bounds_s, self.proposer.shapes
        most = round(_LISTED * self.effort)
        judge.work = 0.0
        if not self.proposer.space.whole:
            self._leave(Unseen.STAGES, self.proposer.least_s)
        for parts in sorted(bounds_s, key=bounds_s.__getitem__):
            if bounds_s[parts] >= judge.best_s:
                return
            found = shapes.of_all(parts, judge.best_s, most) if not judge.is_over else None
            if found is None:
                self._leave(Unseen.SHAPES, bounds_s[parts])
                continue
            for bound_s, shape in sorted(found, key=lambda one: one[0]):
                if bound_s < judge.best_s:
                    self._exhaust(bound_s, shape, most)

    def _exhaust(self, bound_s: float, shape: Shape, most: int) -> None:
        judge, space = self.judge, self.proposer.space
        for grouping in self.proposer.shapes.groupings(shape):
            plans = None
            if judge.work < judge.most_work and not judge.is_over:
                plans = Enumeration(self.problem, space, grouping).below(judge.best_s, most)
            if plans is None:
                self._leave(Unseen.PLANS, bound_s)
                continue
            self.enumerated += len(plans)
            for number, (plan_s, plan) in enumerate(plans):
                if plan_s >= judge.best_s:
                    break
                if judge.work > judge.most_work:
                    self._leave(Unseen.PLANS, max(bound_s, plan_s))
                    break
                judge.predict(plan)
                self._tell(0.5 + 0.5 * min(1.0, number / len(plans)))

    def _narrow(self) -> None:
        """What is found without some pools is found; of few chips, what is found with one schedule or one tp for all,
        too."""
        pools = self.problem.topology.pools
        if self.left and (self._few or len(pools) <= _POOLS):
            self._search((one for one in without_each_pool(self.problem) if self._may_win(one)), whole=True)
        if self.left and self._few:
            self._search(chain(with_one_schedule(self.problem), with_one_tp(self.problem)), whole=False)

    @property
    def _few(self) -> bool:
        """Whether it is about few chips."""
        return sum(pool.count for pool in self.problem.topology.pools) <= _FEW

    def _search(self, problems: Iterable[Problem], whole: bool) -> None:
        for problem in problems:
            if self.judge.is_over:
                return
            part = Seeking(problem, self.effort)
            part.judge.ends_at = self.judge.ends_at
            for found in part.run(whole)[:1]:
                self.judge.predict(found.plan)
            self.judge.interrupted = self.judge.interrupted or part.judge.interrupted

    def _may_win(self, problem: Problem) -> bool:
        """With its pools alone."""
        pools = {pool.name for pool in problem.topology.pools}
        bounds_s = (s for parts, s in self.proposer.bounds_s.items() if pools.issuperset(chain(*parts)))
        return min(bounds_s, default=inf) < self.judge.best_s

    def _leave(self, part: Unseen, bound_s: float) -> None:
        self.left.add(part)
        self.open_s = min(self.open_s, bound_s)

    def _try(self, candidate: Candidate) -> Prediction | None:
        """The finished plan; cut again with care if its exact memory turns out not to fit."""
        found = self.judge.predict(candidate.plan)
        if found is None:
            pricer = self.proposer.pricer
            for careful in islice(pricer.candidates(candidate.grouping, candidate.step_s, cautious=True), 1):
                found = self.judge.predict(careful.plan)
        if found and found is self.judge.best:
            self.grouping = candidate.grouping
        return found

    def _tell(self, part: float) -> None:
        if self.progress:
            self.progress(part, self.judge.best_s)
