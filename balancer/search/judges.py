"""The judges of a search, each dearer and sharper than the one before: formula, exact cut, simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from balancer.completion.completion import complete
from balancer.errors import PlanError
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.search.pricing import Priced, Pricer
from balancer.search.shape import Shape
from balancer.search.shares import shares
from balancer.simulate.simulate import Prediction, simulate
from balancer.simulate.sync import HeldParameters, expected_sync_s


@dataclass(frozen=True)
class Candidate:
    """A shape, and what its last judge has made of it: `groups` with cuts, the `micro_batches` of each pipeline, the
    seconds of a step; and a prediction of the finished plan, once it has been simulated."""

    shape: Shape
    groups: tuple[Priced, ...]
    micro_batches: tuple[int, ...]
    step_s: float
    prediction: Prediction | None = None


class Judges:
    """Of one problem. Each gives a sharper candidate, or None for one that is none."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.pricer = problem, Pricer(problem)

    def formula(self, shape: Shape) -> Candidate | None:
        """Cuts by time alone, without memory and hops."""
        return self._shared_out(shape, (self.pricer.rough(group) for group in shape))

    def exact_cut(self, candidate: Candidate, cautious: bool = False) -> Candidate | None:
        """Cuts that fit into memory, as far as is known before owners are."""
        pipelines = sum(group.pipelines for group in candidate.shape)
        return self._shared_out(
            candidate.shape, (self.pricer.exact(group, pipelines, cautious) for group in candidate.shape)
        )

    def simulation(self, candidate: Candidate) -> Candidate | None:
        """The finished plan; cut again with care if its exact memory turns out not to fit."""
        found = self._finished(candidate)
        careful = None if found else self.exact_cut(candidate, cautious=True)
        return self._finished(careful) if careful else found

    def _shared_out(self, shape: Shape, priced: Iterable[Priced | None]) -> Candidate | None:
        """With the best shares of the pipelines."""
        groups = tuple(priced)
        found = tuple(group for group in groups if group is not None)
        if len(found) < len(groups):
            return None
        problem = self.problem
        pipelines = [group for group in found for _ in range(group.group.pipelines)]
        fill_s, period_s = [p.fill_s for p in pipelines], [p.period_s for p in pipelines]
        counts = shares(fill_s, period_s, problem.micro_batches)
        last = max(fill + n * each for fill, n, each in zip(fill_s, counts, period_s, strict=True))
        held = [HeldParameters(group.group.pipelines, group.parameters) for group in found]
        step_s = last + expected_sync_s(held, problem.topology, problem.workload)
        return Candidate(shape, found, counts, step_s)

    def _finished(self, candidate: Candidate) -> Candidate | None:
        try:
            plan = complete(self._plan(candidate), self.problem)
        except PlanError:
            return None
        prediction = simulate(plan, self.problem)
        return replace(candidate, prediction=prediction, step_s=prediction.step_s)

    def _plan(self, candidate: Candidate) -> Plan:
        size = self.problem.micro_batch
        pipelines = [priced for priced in candidate.groups for _ in range(priced.group.pipelines)]
        return Plan(
            schedule=self.problem.options.schedule,
            pipelines=tuple(
                PipelinePlan(share=n * size, micro_batch=size, stages=_stages(priced))
                for n, priced in zip(candidate.micro_batches, pipelines, strict=True)
            ),
        )


def _stages(priced: Priced) -> tuple[StagePlan, ...]:
    return tuple(
        StagePlan(pool=pool, tp=tp, units=(units,))
        for (pool, tp), units in zip(priced.group.stages, priced.ranges, strict=True)
    )
