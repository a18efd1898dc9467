"""The best plan for a problem, how good it is known to be, why the others lost, and why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from balancer.completion.idle import Idle
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.certificate import Certificate, SpaceSizes
from balancer.search.no_fit import explain
from balancer.search.reasons import Loss, RunnerUp, compared, left_idle
from balancer.search.seeking import OnProgress, Seeking
from balancer.simulate.simulate import Prediction


@dataclass(frozen=True)
class SearchResult:
    """The chosen plan, completed, and all that was `found`, from fast to slow. `idle` are the chips that the choice
    leaves out."""

    found: tuple[Prediction, ...]
    idle: tuple[Idle, ...]
    sizes: SpaceSizes
    certificate: Certificate

    @property
    def prediction(self) -> Prediction:
        return self.found[0]

    @property
    def plan(self) -> Plan:
        return self.prediction.plan

    @property
    def runners_up(self) -> tuple[tuple[Plan, Prediction, str], ...]:
        """Other plans from fast to slow, each with why it lost, in words."""
        return tuple((each.prediction.plan, each.prediction, each.why) for each in self._compared[1])

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The same as numbers: of the chosen plan itself, then of each of the runners-up."""
        own, others = self._compared
        return own, *(each.loss for each in others)

    @cached_property
    def _compared(self) -> tuple[Loss, list[RunnerUp]]:
        return compared(self.found[0], self.found[1:])

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
    idle = left_idle(problem, found, seeking.best_with)
    return SearchResult(tuple(found), idle, seeking.sizes, seeking.certificate)
