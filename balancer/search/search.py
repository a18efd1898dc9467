"""The best plan for a problem, how good it is known to be, why the others lost, and why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.completion.idle import Idle
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.certificate import Certificate, SpaceSizes
from balancer.search.no_fit import explain
from balancer.search.reasons import Loss, compared, left_idle
from balancer.search.seeking import OnProgress, Seeking
from balancer.simulate.simulate import Prediction


@dataclass(frozen=True)
class SearchResult:
    """The chosen plan, completed, then others from fast to slow, each with why it lost, in words and, in `losses`, as
    numbers. `idle` are the chips that the choice leaves out."""

    plan: Plan
    prediction: Prediction
    runners_up: tuple[tuple[Plan, Prediction, str], ...]
    idle: tuple[Idle, ...]
    losses: tuple[Loss, ...]
    sizes: SpaceSizes
    certificate: Certificate

    @property
    def bound_s(self) -> float:
        """No plan's step is shorter."""
        return self.certificate.bound_s


def search(
    problem: Problem,
    effort: float = 1.0,
    deadline_s: float | None = None,
    progress: OnProgress | None = None,
) -> SearchResult:
    """Without a deadline the same problem has the same answer everywhere; `effort` is how many times as much is tried
    as usually. At the deadline, or where the user interrupts, the best so far is the answer. `progress` is called with
    the part of the work that is done and the best step so far.

    Raises PlanError if the micro-batch doesn't divide the global batch, and NoPlanFits with the need, the limit and the
    smallest change that fits."""
    batch, size = problem.workload.global_batch, problem.micro_batch
    if size < 1 or batch % size:
        rule = f"a global batch of {batch} is whole micro-batches"
        raise PlanError("train.micro_batch", size, rule, "use a divisor of the global batch")
    seeking = Seeking(problem, effort, deadline_s, progress)
    found = seeking.run()
    if not found:
        raise explain(problem)
    best, *others = found
    own, lost = compared(best, others)
    return SearchResult(
        best.plan,
        best,
        tuple((each.prediction.plan, each.prediction, each.why) for each in lost),
        left_idle(problem, found, seeking.best_with),
        (own, *(each.loss for each in lost)),
        seeking.sizes,
        seeking.certificate,
    )
