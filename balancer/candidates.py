"""Candidates for the best plan: all shapes by formula, the promising ones by exact cuts and shares, the best of those
by simulation.

A pool may be left idle where that is faster. Every subset of the pools is searched by itself, so a pool more can only
help; the work therefore doubles with each pool (three pools of eight chips take about a second).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import combinations, islice
from math import inf

from balancer.completion import complete
from balancer.cost import Times
from balancer.errors import PlanError
from balancer.plan import PipelinePlan, Plan, StagePlan
from balancer.pricing import Priced, Pricer
from balancer.schedule.registry import schedule
from balancer.shape import Shape, shapes
from balancer.shares import shares
from balancer.simulate import Prediction, simulate
from balancer.topology import Topology
from balancer.workload import LegalTp, Workload

Candidate = tuple[Plan, Prediction]
_PricedShape = tuple[float, Shape, list[Priced], tuple[int, ...]]  # step by formula; micro-batches of each pipeline
_CUT, _SIMULATED = 16, 6  # how many of each subset's shapes go on to the next, dearer judge


@dataclass(frozen=True)
class Candidates:
    """What one search considers. `all` does the work."""

    topology: Topology
    workload: Workload
    times: Times
    schedule: str
    micro_batch: int
    legal_tp: LegalTp

    def all(self) -> list[Candidate]:
        """The simulated plans of every subset of the pools, fastest first; of equally fast ones, more pools first."""
        names = [pool.name for pool in self.topology.pools]
        pricer = self.pricer()
        found: list[Candidate] = []
        for size in range(len(names), 0, -1):
            for subset in combinations(names, size):
                found += self._candidates(self.topology.only(frozenset(subset)), pricer)
        return sorted(found, key=lambda candidate: candidate[1].step_s)

    def pricer(self) -> Pricer:
        return Pricer(self.topology, self.workload, self.times, self.micro_batch, schedule(self.schedule))

    def shapes(self, topology: Topology) -> Iterator[Shape]:
        most = len(self.workload.cuts) - 1, self.workload.global_batch // self.micro_batch
        for shape in shapes(topology.pools, self.legal_tp, *most):
            stages = {stage for group in shape for stage in group.stages}
            if all(self.times.knows(pool, tp, self.workload) for pool, tp in stages):
                yield shape

    def _candidates(self, topology: Topology, pricer: Pricer) -> list[Candidate]:
        """Plans that use exactly these pools."""
        roughly = [(self._rough_s(shape, pricer), i, shape) for i, shape in enumerate(self.shapes(topology))]
        by_formula = (self._priced(shape, pricer) for step_s, _, shape in sorted(roughly) if step_s < inf)
        cut_exactly = islice((found for found in by_formula if found), _CUT)
        best = nsmallest(_SIMULATED, cut_exactly, key=lambda found: found[0])
        return [
            candidate for _, shape, groups, counts in best for candidate in self._judged(shape, groups, counts, pricer)
        ]

    def _rough_s(self, shape: Shape, pricer: Pricer) -> float:
        groups = [pricer.rough(group) for group in shape]
        priced = [group for group in groups if group is not None]
        return self._share_out(priced, pricer)[0] if len(priced) == len(groups) else inf

    def _priced(self, shape: Shape, pricer: Pricer, cautious: bool = False) -> _PricedShape | None:
        """With exact cuts; None if there are none that fit."""
        pipelines = sum(group.pipelines for group in shape)
        groups = [pricer.exact(group, pipelines, cautious) for group in shape]
        priced = [group for group in groups if group is not None]
        if len(priced) < len(groups):
            return None
        step_s, counts = self._share_out(priced, pricer)
        return step_s, shape, priced, counts

    def _judged(self, shape: Shape, groups: list[Priced], counts: tuple[int, ...], pricer: Pricer) -> list[Candidate]:
        """Simulated; cut again with care if the exact memory of the finished plan turns out not to fit."""
        found = list(self._simulated(groups, counts))
        careful = None if found else self._priced(shape, pricer, cautious=True)
        return list(self._simulated(*careful[2:])) if careful else found

    def _share_out(self, groups: Sequence[Priced], pricer: Pricer) -> tuple[float, tuple[int, ...]]:
        pipelines = [group for group in groups for _ in range(group.group.pipelines)]
        fill_s, period_s = [p.fill_s for p in pipelines], [p.period_s for p in pipelines]
        counts = shares(fill_s, period_s, self.workload.global_batch // self.micro_batch)
        last = max(fill + n * each for fill, n, each in zip(fill_s, counts, period_s, strict=True))
        return last + pricer.sync_s(groups), counts

    def _simulated(self, groups: Sequence[Priced], counts: tuple[int, ...]) -> Iterator[Candidate]:
        """The plan, if it fits in memory."""
        try:
            plan = complete(self._plan(groups, counts), self.topology, self.workload, self.legal_tp, self.times)
        except PlanError:
            return
        yield plan, simulate(plan, self.topology, self.workload, self.times)

    def _plan(self, groups: Sequence[Priced], counts: Sequence[int]) -> Plan:
        pipelines = [priced for priced in groups for _ in range(priced.group.pipelines)]
        return Plan(
            schedule=self.schedule,
            pipelines=tuple(
                PipelinePlan(share=n * self.micro_batch, micro_batch=self.micro_batch, stages=_stages(priced))
                for n, priced in zip(counts, pipelines, strict=True)
            ),
        )


def _stages(priced: Priced) -> tuple[StagePlan, ...]:
    return tuple(
        StagePlan(pool=pool, tp=tp, units=(units,))
        for (pool, tp), units in zip(priced.group.stages, priced.ranges, strict=True)
    )
