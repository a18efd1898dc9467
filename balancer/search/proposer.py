"""Plans that formulas find fast: promising shapes, cut; and what lies next to a plan that is good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import nsmallest
from itertools import islice

from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.grouping import Grouping
from balancer.search.judge import PlanJudge
from balancer.search.neighbours import neighbours
from balancer.search.pricing import Candidate, Pricer
from balancer.search.shapes import Parts, Shape, Shapes
from balancer.search.space import LayoutSpace

_SHALLOW = 64
"""Places to cut a model, up to which all orders of promising shapes are cut too; of other models, those of the best
quarter."""


class Proposer:
    """Of one problem. `bounds_s` are those of shapes by their parts, `priced` counts the groupings that are cut."""

    def __init__(self, problem: Problem, judge: PlanJudge) -> None:
        self.problem, self.judge, self.space = problem, judge, LayoutSpace(problem)
        self.shapes, self.pricer = Shapes(problem, self.space), Pricer(problem, self.space)
        self.bounds_s = {tuple(parts): self.shapes.bound_s(parts) for parts in self.shapes.parts}
        self.priced = 0
        self._cut_any = False

    @property
    def least_s(self) -> float:
        """No plan's step is shorter."""
        return min(self.bounds_s.values())

    def candidates(self, every: Iterable[Parts], most: int) -> list[Candidate]:
        """Plans by formula, of a few times as many shapes of these parts, the fastest first."""
        guesses = [
            (step_s, number, shape)
            for number, parts in enumerate(every)
            if self.bounds_s[tuple(parts)] < self.judge.best_s
            for step_s, shape in self.shapes.promising(parts)
        ]
        usual: list[tuple[float, int, float, Shape, list[Candidate]]] = []
        found: list[Candidate] = []
        for number, (guess_s, _, shape) in enumerate(_mixed(guesses, most * 3)):
            cut = self.cut(islice(self.shapes.groupings(shape), 1), guess_s)
            usual += [(min(map(step_s, cut)), number, guess_s, shape, cut)] if cut else []
            found += cut
        few = most if len(self.problem.workload.cuts) <= _SHALLOW else max(1, most // 4)
        for _, _, guess_s, shape, cut in nsmallest(few, usual):
            found += self._others(shape, guess_s, cut)
        return sorted(found, key=step_s)

    def _others(self, shape: Shape, guess_s: float, cut: Sequence[Candidate]) -> list[Candidate]:
        """Its other orders, and the best one of all under each schedule."""
        first, *others = self.shapes.groupings(shape)
        orders = self.cut([one for one in others if one.schedule == first.schedule], guess_s)
        best = min((*orders, *cut), key=step_s).grouping
        names = self.problem.schedules[1:] if any(len(group.stages) > 1 for group in best.groups) else ()
        return orders + self.cut([replace(best, schedule=name) for name in names], guess_s)

    def roomiest(self) -> Iterator[Candidate]:
        """One pipeline or a few, of all pools or some, by how much memory they have alone: the smallest micro-batches,
        as many stages as there is room for, and those first that have most."""
        pool, size = self.problem.topology.pool, min(self.problem.micro_batch_sizes)
        for parts in sorted((parts for parts in self.bounds_s if len(parts) == 1), key=lambda parts: -len(parts[0])):
            for layouts in self.space.of(parts[0]).layouts:
                for row in layouts.roomiest if layouts.micro_batch == size else ():
                    group = layouts.roomiest_group(row, lambda name: pool(name).memory_bytes)
                    yield from self.cut([Grouping((group,), self.problem.schedules[0])], self.bounds_s[parts])

    def near(self, grouping: Grouping, within_s: float, known: set[Grouping]) -> list[Candidate]:
        """The best cut of each unknown neighbour, the fastest first."""
        every = [one for one in dict.fromkeys(neighbours(self.problem, grouping)) if one not in known]
        found = [min(cut, key=step_s) for one in every if (cut := self.cut([one], within_s))]
        return sorted(found, key=step_s)

    def led(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Candidates in their order, those of untimed schedules first; before all, the best of each schedule."""
        order = sorted(found, key=lambda one: schedule(one.schedule).timed)
        first = {one.schedule: one for one in reversed(found)}
        leading = sorted((one for one in first.values() if self.judge.is_light(one.plan)), key=step_s)
        return leading + [one for one in order if one not in leading]

    def cut(self, groupings: Iterable[Grouping], within_s: float) -> list[Candidate]:
        """Cuts of groupings whose step is expected to take so long, while there is time, or until there is one."""
        found: list[Candidate] = []
        for grouping in groupings:
            if not self._cut_any or not self.judge.is_over:
                self.priced += 1
                found += self.pricer.candidates(grouping, within_s)
                self._cut_any = self._cut_any or bool(found)
        return found


def step_s(candidate: Candidate) -> float:
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
