"""The best plan for a problem, why the others lost, and why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.completion.idle import Idle
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.candidates import predictions
from balancer.search.no_fit import explain
from balancer.search.reasons import left_idle, runners_up
from balancer.simulate.simulate import Prediction


@dataclass(frozen=True)
class SearchResult:
    """The chosen plan, completed, then others from fast to slow, each with why it lost. `idle` are the chips that the
    choice leaves out."""

    plan: Plan
    prediction: Prediction
    runners_up: tuple[tuple[Plan, Prediction, str], ...]
    idle: tuple[Idle, ...] = ()


def search(problem: Problem) -> SearchResult:
    """Raises PlanError if the micro-batch doesn't divide the global batch, and NoPlanFits with the need, the limit and
    the smallest change that fits."""
    batch, size = problem.workload.global_batch, problem.micro_batch
    if size < 1 or batch % size:
        rule = f"a global batch of {batch} is whole micro-batches"
        raise PlanError("train.micro_batch", size, rule, "use a divisor of the global batch")
    found = predictions(problem)
    if not found:
        raise explain(problem)
    best, *others = found
    return SearchResult(best.plan, best, runners_up(best, others), left_idle(problem, found))
