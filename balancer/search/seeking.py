"""The search itself: promising shapes by formula, the best of them by simulation; then, as far as the effort goes, one
after another of all that may still be faster, until nothing is left or what is left is told in the certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import nsmallest
from itertools import chain, islice
from math import inf
from time import monotonic

from balancer.completion.completion import complete
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.certificate import Certificate, SpaceSizes, Unseen
from balancer.search.enumeration import Enumeration
from balancer.search.grouping import Grouping
from balancer.search.layouts import LayoutSpace
from balancer.search.neighbours import neighbours
from balancer.search.pricing import Candidate, Pricer
from balancer.search.shapes import Shape, Shapes
from balancer.simulate.simulate import Prediction, simulate

OnProgress = Callable[[float, float], None]
_SHAPES = 8
"""Promising shapes that are cut."""
_SHALLOW = 64
"""Places to cut a model, up to which all orders of these are cut too; of other models, those of the best quarter."""
_SIMULATED = 4
"""Of the plans that formulas find best, those that are simulated at least; how many more depends on their size."""
_WORK, _OF_A_CHIP = 1024, 16
"""Forwards and backwards that are simulated while plans are compared, and then while all are looked through; and more
for each chip."""
_EACH, _STAGE, _TIMED = 64, 16, 12
"""How many of these the rest of a plan counts for, of each stage, and each one of a schedule whose lists take a while
to make."""
_LEADING = 4096
"""Work up to which a plan is simulated first because it is the best of its schedule."""
_TRIED = 3
"""Of the groupings next to the best one, those that are simulated at a time."""
_NEAR = 1.05
"""How much longer than the best step theirs may be by formula, which is not exact."""
_ROUNDS = 8
"""How often the search goes on from there at most."""
_FEW = 16
"""Chips of a problem of which narrower ones are searched, too."""
_LISTED = 128
"""Plans, and shapes, that are listed one by one."""


class Seeking:
    """One search."""

    def __init__(
        self, problem: Problem, effort: float = 1.0, deadline_s: float | None = None, progress: OnProgress | None = None
    ) -> None:
        self.problem, self.effort, self.progress = problem, effort, progress
        self.ends_at = inf if deadline_s is None else monotonic() + deadline_s
        self.space = LayoutSpace(problem)
        self.shapes, self.pricer = Shapes(problem, self.space), Pricer(problem, self.space)
        self.bounds_s = {tuple(parts): self.shapes.bound_s(parts) for parts in self.shapes.parts}
        self.predictions: dict[Plan, Prediction | None] = {}
        self.best: Prediction | None = None
        self.grouping: Grouping | None = None
        """That of the best plan."""
        self.work = 0.0
        chips = sum(pool.count for pool in problem.topology.pools)
        self.most_work = effort * (_WORK + _OF_A_CHIP * chips)
        self.priced = self.enumerated = 0
        self.left: set[Unseen] = set()
        self.open_s = inf
        self.interrupted = self.cut_any = False

    def run(self, whole: bool = True) -> list[Prediction]:
        """What was simulated, fastest first; of equally fast ones, more pools first. Restricted ones where `whole`."""
        try:
            self._compare()
            self._refine()
            self._look_through()
            if whole:
                self._restrict()
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.interrupted = True
        if self.interrupted:
            self.left |= {Unseen.SHAPES}
            self.open_s = min(self.bounds_s.values())
        found = [one for one in self.predictions.values() if one is not None]
        return sorted(found, key=lambda one: (one.step_s, -len(one.plan.pools())))

    @property
    def sizes(self) -> SpaceSizes:
        simulated = len(self.predictions)
        return SpaceSizes(
            self.space.size, self.space.passed_over, self.shapes.size, self.priced, self.enumerated, simulated
        )

    @property
    def certificate(self) -> Certificate:
        assert self.best is not None
        step_s = self.best.step_s
        return Certificate(min(step_s, self.open_s), step_s, frozenset(self.left), self.interrupted)

    def best_with(self, pool: str) -> float | None:
        """The best step of a plan with a pool that the formulas know of."""
        known = [one.step_s for one in self.predictions.values() if one and pool in one.plan.pools()]
        if known:
            return min(known)
        for parts in sorted(self.bounds_s, key=self.bounds_s.__getitem__):
            if any(pool in part for part in parts):
                for candidate in self.candidates([parts], 1):
                    if found := self._judge(candidate):
                        return found.step_s
        return None

    def _compare(self) -> None:
        """Simulates the plans that formulas find best."""
        found = self.candidates(self.bounds_s, max(1, round(_SHAPES * self.effort)))
        for number, candidate in enumerate(self._led(found)):
            much = number >= _SIMULATED and self.work + self._worth(candidate.plan) > self.most_work
            if self.best and (much or self._is_over()):
                return
            self._judge(candidate)
            self._tell(0.1 + 0.4 * min(1.0, self.work / self.most_work))

    def _refine(self) -> None:
        """Goes from the best plan to the best one next to it, while there is a faster one."""
        tried = {self.grouping}
        for _ in range(max(1, round(_ROUNDS * self.effort))):
            if self.best is None or self.grouping is None or self._is_over():
                return
            before_s = self.best.step_s
            every = [one for one in dict.fromkeys(neighbours(self.problem, self.grouping)) if one not in tried]
            cut = [min(found, key=_step_s) for one in every if (found := self._cut([one], before_s))]
            for candidate in nsmallest(_TRIED, filter(self._is_light, cut), key=_step_s):
                if candidate.step_s < _NEAR * before_s and not self._is_over():
                    tried.add(candidate.grouping)
                    self._judge(candidate)
            if self.best.step_s == before_s:
                return

    def _led(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Candidates in their order, the untimed ones first; before all, the best of each schedule."""
        order = sorted(found, key=lambda one: schedule(one.schedule).timed)
        first = {one.schedule: one for one in reversed(found)}
        leading = sorted(filter(self._is_light, first.values()), key=_step_s)
        return leading + [one for one in order if one not in leading]

    def _is_light(self, candidate: Candidate) -> bool:
        return not schedule(candidate.schedule).timed or self._worth(candidate.plan) <= _LEADING * self.effort

    def candidates(self, every: Iterable[tuple[tuple[str, ...], ...]], most: int) -> list[Candidate]:
        """Plans by formula, of a few times as many shapes of these parts, the fastest first."""
        guesses = [
            (step_s, number, shape)
            for number, parts in enumerate(every)
            if self.bounds_s[parts] < self._best_s
            for step_s, shape in self.shapes.promising(parts)
        ]
        usual: list[tuple[float, int, float, Shape, list[Candidate]]] = []
        found: list[Candidate] = []
        for number, (step_s, _, shape) in enumerate(_mixed(guesses, most * 3)):
            cut = self._cut(islice(self.shapes.groupings(shape), 1), step_s)
            usual += [(min(map(_step_s, cut)), number, step_s, shape, cut)] if cut else []
            found += cut
        few = most if len(self.problem.workload.cuts) <= _SHALLOW else max(1, most // 4)
        for _, _, step_s, shape, cut in nsmallest(few, usual):
            first, *others = self.shapes.groupings(shape)
            orders = self._cut([one for one in others if one.schedule == first.schedule], step_s)
            best = min((*orders, *cut), key=_step_s).grouping
            names = self.problem.schedules[1:] if any(len(group.stages) > 1 for group in best.groups) else ()
            found += orders + self._cut([replace(best, schedule=name) for name in names], step_s)
        return sorted(found, key=_step_s)

    def _cut(self, groupings: Iterable[Grouping], step_s: float) -> list[Candidate]:
        found: list[Candidate] = []
        for grouping in groupings:
            if not self.cut_any or not self._is_over():
                self.priced += 1
                found += self.pricer.candidates(grouping, step_s)
                self.cut_any = self.cut_any or bool(found)
        return found

    def _look_through(self) -> None:
        """All that may be faster, by its bound, while it is little enough."""
        most = round(_LISTED * self.effort)
        self.work = 0.0
        if not self.space.whole:
            self._leave(Unseen.STAGES, min(self.bounds_s.values()))
        for parts in sorted(self.bounds_s, key=self.bounds_s.__getitem__):
            if self.bounds_s[parts] >= self._best_s:
                return
            shapes = self.shapes.of_all(parts, self._best_s, most) if not self._is_over() else None
            if shapes is None:
                self._leave(Unseen.SHAPES, self.bounds_s[parts])
                continue
            for bound_s, shape in sorted(shapes, key=lambda one: one[0]):
                if bound_s < self._best_s:
                    self._exhaust(bound_s, shape, most)

    def _exhaust(self, bound_s: float, shape: Shape, most: int) -> None:
        for grouping in self.shapes.groupings(shape):
            plans = None
            if self.work < self.most_work and not self._is_over():
                plans = Enumeration(self.problem, self.space, grouping).below(self._best_s, most)
            if plans is None:
                self._leave(Unseen.PLANS, bound_s)
                continue
            self.enumerated += len(plans)
            for number, (plan_s, plan) in enumerate(plans):
                if plan_s >= self._best_s:
                    break
                if self.work > self.most_work:
                    self._leave(Unseen.PLANS, max(bound_s, plan_s))
                    break
                self._judge_plan(plan)
                self._tell(0.5 + 0.5 * min(1.0, number / len(plans)))

    def _restrict(self) -> None:
        """Of few chips, what is found without some pools, with one schedule or with one tp for all is found."""
        pools = self.problem.topology.pools
        if not self.left or sum(pool.count for pool in pools) > _FEW:
            return
        names = frozenset(pool.name for pool in pools)
        fewer = [self.problem.only(kept) for kept in (names - {pool.name} for pool in pools) if self._may_win(kept)]
        for whole, problems in ((True, fewer), (False, self._narrowed())):
            for problem in problems:
                part = Seeking(problem, self.effort)
                part.ends_at = self.ends_at
                for found in part.run(whole)[:1]:
                    self._judge_plan(found.plan)
                if part.interrupted:
                    self.interrupted = True
                    return

    def _may_win(self, kept: frozenset[str]) -> bool:
        """With these pools alone."""
        bounds_s = (bound_s for parts, bound_s in self.bounds_s.items() if kept.issuperset(chain(*parts)))
        return min(bounds_s, default=inf) < self._best_s

    def _narrowed(self) -> Iterator[Problem]:
        """With one of what the problem leaves open."""
        options, topology = self.problem.options, self.problem.topology
        if len(self.problem.schedules) > 1:
            choose = tuple(choice for choice in options.choose if choice != "schedule")
            for name in self.problem.schedules:
                narrow = options.model_copy(update={"choose": choose, "schedule": name})
                yield replace(self.problem, options=narrow)
        sizes = [set(pool.tp_sizes()) for pool in topology.pools]
        if len(sizes) > 1 and any(len(each) > 1 for each in sizes):
            for tp in sorted(set.intersection(*sizes)):
                pools = tuple(replace(pool, tp=tp) for pool in topology.pools)
                yield replace(self.problem, topology=replace(topology, pools=pools))

    def _leave(self, part: Unseen, bound_s: float) -> None:
        self.left.add(part)
        self.open_s = min(self.open_s, bound_s)

    @property
    def _best_s(self) -> float:
        return self.best.step_s if self.best else inf

    def _judge(self, candidate: Candidate) -> Prediction | None:
        """The finished plan; cut again with care if its exact memory turns out not to fit."""
        self._judge_plan(candidate.plan)
        found = self.predictions[candidate.plan]
        if found is None:
            for careful in islice(self.pricer.candidates(candidate.grouping, candidate.step_s, cautious=True), 1):
                self._judge_plan(careful.plan)
                found = self.predictions[careful.plan]
        if found and found is self.best:
            self.grouping = candidate.grouping
        return found

    def _judge_plan(self, plan: Plan) -> None:
        if plan in self.predictions:
            return
        self.work += self._worth(plan)
        try:
            found = simulate(complete(plan, self.problem), self.problem)
        except PlanError:
            self.predictions[plan] = None
            return
        self.predictions[plan] = found
        if found.step_s < self._best_s:
            self.best = found

    def _worth(self, plan: Plan) -> int:
        """How much work a plan is, by its actions alone."""
        each = _TIMED if schedule(plan.schedule).timed else 1
        unlike = {(p.share, id(p.stages)): p for p in plan.pipelines}.values()
        stages = sum(len(p.stages) for p in plan.pipelines)
        return _EACH + _STAGE * stages + each * sum(p.micro_batches * len(p.stages) for p in unlike)

    def _is_over(self) -> bool:
        self.interrupted = self.interrupted or monotonic() > self.ends_at
        return self.interrupted

    def _tell(self, part: float) -> None:
        if self.progress:
            self.progress(part, self._best_s)


def _step_s(candidate: Candidate) -> float:
    return candidate.step_s


def _mixed(guesses: list[tuple[float, int, Shape]], most: int) -> list[tuple[float, int, Shape]]:
    """The best ones, a third of them of unlike parts and a third of unlike tps, with one tp for all pools before."""
    order = sorted(guesses, key=lambda guess: guess[0])
    of_parts, of_tps = Counter[Hashable](), Counter[Hashable]()
    parts, tps = [], []
    for guess in order:
        tp: Hashable = tuple((way.layouts.pools, way.layouts.tps) for way in guess[2])
        if len(every := {tp for way in guess[2] for tp in way.layouts.tps}) == 1:
            tp = every.pop()
        if of_parts[guess[1]] < 2:
            parts.append(guess)
        elif not of_tps[tp]:
            tps.append(guess)
        of_parts[guess[1]] += 1
        of_tps[tp] += 1
    tps.sort(key=lambda guess: len({tp for way in guess[2] for tp in way.layouts.tps}) > 1)
    first = parts[: most // 3] + tps[: most // 3]
    return first + [guess for guess in order if guess not in first][: most - len(first)]
