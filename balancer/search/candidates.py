"""Candidates for the best plan: all groupings by formula, the promising ones by exact cuts and shares, the best of
those by simulation.

A pool may be left idle where that is faster. Every subset of the pools is searched by itself, so a pool more can only
help; the work therefore doubles with each pool (three pools of eight chips take about a second).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice

from balancer.problem import Problem
from balancer.search.grouping import Grouping, groupings
from balancer.search.judges import Judges
from balancer.simulate.simulate import Prediction

_CUT, _SIMULATED = 16, 6  # how many of each subset's groupings go on to the next, dearer judge


def predictions(problem: Problem) -> list[Prediction]:
    """The simulated plans of every subset of the pools, fastest first; of equally fast ones, more pools first."""
    judges = Judges(problem)
    found = [prediction for subset in problem.subsets() for prediction in _best(subset, judges)]
    return sorted(found, key=lambda prediction: prediction.step_s)


def all_groupings(problem: Problem) -> Iterator[Grouping]:
    """Of plans that use exactly the problem's pools, where there are times."""
    most = len(problem.workload.cuts) - 1, problem.micro_batches
    for grouping in groupings(problem.topology.pools, problem.legal_tp, *most):
        stages = {stage for group in grouping for stage in group.stages}
        if all(problem.knows(pool, tp) for pool, tp in stages):
            yield grouping


def _best(problem: Problem, judges: Judges) -> Iterator[Prediction]:
    """Of plans that use exactly these pools. A judge sees first what the one before found fastest."""
    by_formula = [found for grouping in all_groupings(problem) if (found := judges.formula(grouping))]
    by_formula.sort(key=lambda found: found.step_s)
    cut_exactly = islice((found for one in by_formula if (found := judges.exact_cut(one))), _CUT)
    for one in nsmallest(_SIMULATED, cut_exactly, key=lambda found: found.step_s):
        judged = judges.simulation(one)
        if judged and judged.prediction:
            yield judged.prediction
