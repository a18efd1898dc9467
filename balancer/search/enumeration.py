"""Every plan of a grouping: all its cuts, strategies and shares, for searches that are small enough to try them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations, pairwise, product
from math import comb, prod
from typing import NamedTuple

from balancer.plan.plan import PipelinePlan, Plan, Range, StagePlan
from balancer.plan.recompute import Recompute, RecomputedUnits
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.bounds import PipelineBound, pipeline_bound
from balancer.search.grouping import Group, Grouping
from balancer.search.space import LayoutSpace
from balancer.search.stage_costs import least_part
from balancer.search.strategies import recompute_words, recomputed, strategies


class Bounded(NamedTuple):
    """A plan whose step is no shorter than that."""

    bound_s: float
    plan: Plan


class _Option(NamedTuple):
    stages: tuple[StagePlan, ...]
    bound: PipelineBound


class Enumeration:
    """Of one grouping."""

    def __init__(self, problem: Problem, space: LayoutSpace, grouping: Grouping) -> None:
        self.problem, self.space, self.grouping = problem, space, grouping

    @cached_property
    def size(self) -> int:
        """Cuts and strategies, shares aside."""
        return prod(self._options_of(group) for group in self.grouping.groups)

    def below(self, step_s: float, most: int) -> list[Bounded] | None:
        """The plans that may be faster, the most promising first; None if there are more than so many."""
        if self.size > most:
            return None
        options = [list(self._options(group)) for group in self.grouping.groups]
        found: list[Bounded] = []
        for chosen in product(*options):
            for counts in self._shares(chosen, step_s):
                if len(found) == most:
                    return None
                found.append(self._bounded(chosen, counts))
        return sorted(found, key=lambda one: one.bound_s)

    def _bounded(self, chosen: Sequence[_Option], counts: Sequence[int]) -> Bounded:
        pipelines, bound_s = [], 0.0
        each = [(group, option) for group, option in zip(self.grouping.groups, chosen, strict=True)
                for _ in range(group.pipelines)]  # fmt: skip
        for (group, option), n in zip(each, counts, strict=True):
            size = group.micro_batch
            pipelines.append(PipelinePlan(share=n * size, micro_batch=size, stages=option.stages))
            bound_s = max(bound_s, option.bound.step_s(n))
        return Bounded(bound_s, Plan(schedule=self.grouping.schedule, pipelines=tuple(pipelines)))

    def _shares(self, chosen: Sequence[_Option], step_s: float) -> Iterator[tuple[int, ...]]:
        """Micro-batches of each pipeline, of equal ones in falling order, none of which takes longer alone."""
        groups, batch = self.grouping.groups, self.problem.workload.global_batch
        each = [(g, group.micro_batch) for g, group in enumerate(groups) for _ in range(group.pipelines)]
        most = [option.bound.most(step_s, batch // group.micro_batch)
                for option, group in zip(chosen, groups, strict=True)]  # fmt: skip
        room = [0]
        for g, size in reversed(each):
            room.append(room[-1] + most[g] * size)
        room.reverse()

        def rest(i: int, left: int, before: int) -> Iterator[tuple[int, ...]]:
            if i == len(each):
                if left == 0:
                    yield ()
                return
            g, size = each[i]
            upto = min(most[g], left // size, before if i and each[i - 1][0] == g else batch)
            for n in range(upto, 0, -1):
                if left - n * size > room[i + 1]:
                    return
                for more in rest(i + 1, left - n * size, n):
                    yield (n, *more)

        yield from rest(0, batch, batch)

    def _options_of(self, group: Group) -> int:
        """No fewer than there are."""
        cuts, stages, most = len(self.problem.workload.cuts) - 2, group.stages, len(self.problem.workload.units)
        each = (len(strategies(self.problem, tp)) * (3 * most if self._recomputes else 1) for _, tp in stages)
        return comb(cuts, len(stages) - 1) * prod(each)

    def _options(self, group: Group) -> Iterator[_Option]:
        cuts, name = self.problem.workload.cuts, self.grouping.schedule
        costs = [self.space.cost(pool, tp, group.micro_batch) for pool, tp in group.stages]
        alone = self.grouping.pipelines == 1
        moves = schedule(name).wanted_placement(len(costs)) is not None and len(costs) > 1
        for inner in combinations(cuts[1:-1], len(costs) - 1):
            ranges = pairwise((0, *inner, cuts[-1]))
            ways = (self._ways(*stage, units) for stage, units in zip(group.stages, ranges, strict=True))
            for stages in product(*map(list, ways)):
                yield _Option(stages, self._moved(group) if moves else pipeline_bound(
                    self.problem, name, stages, costs, alone))  # fmt: skip

    def _moved(self, group: Group) -> PipelineBound:
        """Where the schedule has chunks of its own: as if any stage could have any unit."""
        costs = [self.space.cost(pool, tp, group.micro_batch) for pool, tp in group.stages]
        period_s = least_part(costs) / sum(1 / cost.least_s[-1] for cost in costs)
        return PipelineBound((0.0,), (max(period_s, min(cost.least_block_s for cost in costs)),), 0.0, 0.0)

    def _ways(self, pool: str, tp: int, units: Range) -> Iterator[StagePlan]:
        for strategy in strategies(self.problem, tp):
            for again in self._recomputes_of(units[1] - units[0]):
                yield strategy.stage(pool, tp, units, again)

    @cached_property
    def _recomputes(self) -> bool:
        return len(recompute_words(self.problem)) > 1

    def _recomputes_of(self, units: int) -> Iterator[Recompute | RecomputedUnits]:
        yield "none"
        words = recompute_words(self.problem)
        for n in range(1, units + 1):
            if "full" in words:
                yield recomputed(n, 0, units)
            if "selective" in words:
                yield recomputed(0, n, units)
                if n < units:
                    yield recomputed(n, units - n, units)
