"""What no step of a plan is shorter than, whatever its schedule and warm-ups: arithmetic that simulation never
undercuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from balancer.cost.times import transfer_s, update_s
from balancer.plan.plan import StagePlan
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.search.stage_costs import StageCosts

SAFE = 1 - 1e-9
"""Sums in another order differ by less."""


@dataclass(frozen=True)
class PipelineBound:
    """Of stages that have one range of units each: `ends` are, by stage, what comes before its first and after its last
    action, and `each` what it takes for a micro-batch; `beside_s` comes after all that."""

    ends: tuple[float, ...]
    each: tuple[float, ...]
    round_trip_s: float
    beside_s: float

    def step_s(self, micro_batches: int) -> float:
        """Each stage computes all micro-batches, between the way of the first there and of the last one back."""
        busiest = max(end + micro_batches * each for end, each in zip(self.ends, self.each, strict=True))
        return SAFE * (max(busiest, self.round_trip_s) + self.beside_s)

    def most(self, within_s: float, upto: int) -> int:
        """Micro-batches that may be done by then."""
        fits = (self.step_s(n) < within_s for n in range(upto, 0, -1))
        return next((upto - i for i, fit in enumerate(fits) if fit), 0)


def pipeline_bound(
    problem: Problem, name: str, stages: Sequence[StagePlan], costs: Sequence[StageCosts], alone: bool
) -> PipelineBound:
    """`alone`: it is the plan's only pipeline, whose stages update all that they hold."""
    work = [cost.seconds(stage) for cost, stage in zip(costs, stages, strict=True)]
    there, back = [0.0], [0.0]
    for (here, after), time in zip(pairwise(stages), work, strict=False):
        activation_s, gradient_s = _hop_s(problem, here, after, costs[0].micro_batch)
        there.append(time.forward_s + activation_s)
        back.append(time.backward_s + gradient_s)
    before, behind = list(accumulate(there)), list(accumulate(back))
    if schedule(name).timed:  # weight gradients may come last, and chunks elsewhere
        behind = [0.0] * len(behind)
    ends = tuple(first + last for first, last in zip(before, behind, strict=True))
    each = tuple(time.total_s for time in work)
    trip = before[-1] + behind[-1] + (work[-1].forward_s if schedule(name).timed else work[-1].total_s)
    beside = _norm_s(problem, stages) + _update_s(problem, stages) if alone else 0.0
    return PipelineBound(ends, each, trip, beside)


def _hop_s(problem: Problem, here: StagePlan, there: StagePlan, micro_batch: int) -> tuple[float, float]:
    """Of an activation and of a gradient, over an idle link."""
    link, crossing = problem.topology.link(here.pool, there.pool), problem.topology.crossing(here.pool, there.pool)
    size = problem.workload.at(crossing).units[here.units[0][1] - 1].boundary_bytes * micro_batch
    if here.pool == there.pool:
        size //= min(here.tp, there.tp)
    return transfer_s(link, size * link.activation_ratio), transfer_s(link, size * link.gradient_ratio)


def _norm_s(problem: Problem, stages: Sequence[StagePlan]) -> float:
    """Everybody hears of everybody's gradients before an update."""
    first, *others = stages
    return 2 * max((problem.topology.link(first.pool, other.pool).latency_s for other in others), default=0.0)


def _update_s(problem: Problem, stages: Sequence[StagePlan]) -> float:
    chips = (problem.topology.pool(stage.pool).chip for stage in stages)
    whole = (stage.model_copy(update={"owns": stage.units}) for stage in stages)
    on_chips = (
        update_s(chip, problem.workload, stage)
        for chip, stage in zip(chips, whole, strict=True)
        if stage.optimizer == "chip"
    )
    return max(on_chips, default=0.0)
