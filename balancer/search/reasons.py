"""What is said about a choice: which plans lost, and why, and what the winner leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from balancer.completion.idle import Idle, idle_chips
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.candidates import all_shapes
from balancer.search.ledger import TERMS, ledger
from balancer.simulate.simulate import Prediction

_MOST = 5


def runners_up(chosen: Prediction, others: Sequence[Prediction]) -> tuple[tuple[Plan, Prediction, str], ...]:
    """The best of the others (given from fast to slow) that differ in more than their warm-ups, and why each lost."""
    seen = {_signature(chosen.plan)}
    kept: list[tuple[Plan, Prediction, str]] = []
    for other in others:
        if _signature(other.plan) not in seen and len(kept) < _MOST:
            seen.add(_signature(other.plan))
            kept.append((other.plan, other, why(chosen, other)))
    return tuple(kept)


def _signature(plan: Plan) -> tuple[object, ...]:
    """What a person would call the plan: its stages, but not how deep their warm-ups are."""
    return tuple((p.share, tuple((s.pool, s.tp, s.units) for s in p.stages)) for p in plan.pipelines)


def why(best: Prediction, other: Prediction) -> str:
    """How much slower, and the ledger term that grew most."""
    idle = sorted(best.plan.pools() - other.plan.pools())
    slower = f"{other.step_s / best.step_s - 1:.1%} slower"
    if idle:
        return f"{slower}: leaves {', '.join(idle)} idle"
    mine, theirs = ledger(best), ledger(other)
    lost_s = {term: theirs[term] * other.step_s - mine[term] * best.step_s for term in TERMS}
    most = max(TERMS, key=lambda term: lost_s[term])
    return f"{slower}: more {most.replace('_', ' ')} (+{lost_s[most] / best.step_s:.1%} of the step)"


def left_idle(problem: Problem, found: Sequence[Prediction]) -> tuple[Idle, ...]:
    """Of predictions from fast to slow: the chips that the first leaves idle; where that is a whole pool, by what the
    search knows of the plans with it."""
    return tuple(
        idle if idle.chips < idle.count else _left_out(idle, problem, found)
        for idle in idle_chips(found[0].plan, problem.topology, problem.legal_tp)
    )


def _left_out(idle: Idle, problem: Problem, found: Sequence[Prediction]) -> Idle:
    using = next((other.step_s for other in found if idle.pool in other.plan.pools()), None)
    if using is not None:
        why = f"the best plan with it takes {using:.4g} s a step, this one {found[0].step_s:.4g} s"
        return replace(idle, why=why, remedy="take the pool out of the job, or give it a faster link")
    if any(all_shapes(problem.only(frozenset({idle.pool})))):
        why = "no plan with it fits the memory of the chips"
        return replace(idle, why=why, remedy="use more chips there, chips with more memory, or a smaller micro_batch")
    why = "it has no division into stages with a legal tp, enough units and a micro-batch for each pipeline"
    return replace(idle, why=why, remedy=f"set pools.{idle.pool}.tp to auto, or raise train.global_batch")
