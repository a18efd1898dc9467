"""The best plan for a topology and a workload, why the others lost, and why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.candidates import Candidates
from balancer.cost import Times
from balancer.errors import PlanError
from balancer.idle import Idle
from balancer.no_fit import explain
from balancer.options import BalanceOptions
from balancer.plan import Plan
from balancer.simulate import Prediction
from balancer.topology import Topology
from balancer.verdict import left_idle, runners_up
from balancer.workload import LegalTp, Workload


@dataclass(frozen=True)
class SearchResult:
    """The chosen plan, completed, then others from fast to slow, each with why it lost. `idle` are the chips that the
    choice leaves out."""

    plan: Plan
    prediction: Prediction
    runners_up: tuple[tuple[Plan, Prediction, str], ...]
    idle: tuple[Idle, ...] = ()


def search(
    topology: Topology,
    workload: Workload,
    times: Times,
    options: BalanceOptions | None = None,
    *,
    micro_batch: int = 1,
    legal_tp: LegalTp | None = None,
) -> SearchResult:
    """Every pipeline gets the same `micro_batch`. Raises PlanError if that doesn't divide the global batch, and
    NoPlanFits with the need, the limit and the smallest change that fits."""
    if micro_batch < 1 or workload.global_batch % micro_batch:
        rule = f"a global batch of {workload.global_batch} is whole micro-batches"
        raise PlanError("train.micro_batch", micro_batch, rule, "use a divisor of the global batch")
    schedule = (options or BalanceOptions()).schedule
    candidates = Candidates(topology, workload, times, schedule, micro_batch, legal_tp or _any_tp)
    found = candidates.all()
    if not found:
        raise explain(candidates)
    (plan, prediction), *others = found
    return SearchResult(plan, prediction, runners_up((plan, prediction), others), left_idle(candidates, found))


def _any_tp(tp: int) -> str | None:
    return None
